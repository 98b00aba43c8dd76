"""Data from files, functions or Python objects, opened and checked against a model's inputs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.config.declare import describe_source
from onnxprune.data.advice import dims_of, fits, shape_advice, type_advice
from onnxprune.data.batch import Batch, Labels
from onnxprune.data.dataset import LABELS, Dataset
from onnxprune.data.images.arrays import ArrayImages
from onnxprune.data.images.transforms import Transform, candidates
from onnxprune.data.objects import open_object
from onnxprune.data.readers import read_text
from onnxprune.data.request import Request
from onnxprune.data.source import Arrays, Source
from onnxprune.data.specs import InputSpec, type_name
from onnxprune.data.values import found_labels
from onnxprune.errors import DataError

# Samples that are read to see what the arrays are.
FIRST = 2


def load_data(source: Any, request: Request) -> Dataset:
    """Open a data source and check its first samples against the model's inputs; the others are read when needed.

    `source`: a path or text as on the command line, or a Python object, see `open_object`.

    Raises:
        DataError: it cannot be read, or names, dtypes or shapes do not fit.
    """
    name = describe_source(source) or ""
    if isinstance(source, str | os.PathLike):
        opened = read_text(os.fspath(source), request)
    else:
        opened = open_object(source, name, request)
    if not len(opened):
        raise DataError(f"{name} has no samples: give at least 2")
    numbers = np.arange(min(FIRST, len(opened)))
    first = opened.read(numbers)
    labels = found_labels(first, {spec.name for spec in request.specs})
    notes = [*opened.notes]
    for spec in request.row_specs if request.transform is not None else ():
        if spec.name in first and first[spec.name].dtype == np.uint8 and spec.dtype.kind == "f":
            opened = ArrayImages(opened, Transform.parse(request.transform or "", spec), labels)
            first = opened.read(numbers)
    fit = Fit.of(first, labels, name, request)
    data = Dataset(
        opened, name, fit, bool(labels), axes=request.batch_axes(), label_offset=request.label_offset
    )
    data.as_batch(first)
    fit.check_shapes(opened)
    if unused := sorted(set(first) - set(fit.names) - set(labels)):
        notes.append(
            f"These arrays of {name} are not inputs of the model and were not used: {', '.join(unused)}."
            + ("" if labels else f" There are no labels: call them 'labels' if {unused[0]!r} is meant.")
        )
    notes += [
        f"The labels of {name} are in the array {key!r}." for key in labels if not key.startswith(LABELS)
    ]
    if request.transform is None and isinstance(guessed := getattr(opened, "transform", None), Transform):
        notes.append(
            f"The shape of the input decided how the images of {name} become inputs: {guessed.text()}. If the model "
            "was trained otherwise, give --transform."
        )
    return replace(data, notes=tuple(notes))


def transform_of(data: Dataset) -> Transform | None:
    """How the images of a dataset become inputs; None where it has no images."""
    given = getattr(data.source, "transform", None)
    return given if isinstance(given, Transform) else None


def other_transforms(data: Dataset, specs: Sequence[InputSpec]) -> Iterator[tuple[str, Dataset]]:
    """The presets with which the images of a dataset could be read instead, and the dataset read with them."""
    given = transform_of(data)
    spec = next((spec for spec in specs if given is not None and spec.name == given.input), None)
    for name, transform in {} if spec is None else candidates(spec).items():
        if transform != given:
            source = copy(data.source)
            source.transform = transform  # type: ignore[attr-defined]
            yield name, replace(data, source=source)


def repeatable(source: Any) -> Any:
    """A data source, or None, that can be read more than once: an iterator becomes a list."""
    if source is None or isinstance(source, str | os.PathLike | Mapping | Sequence):
        return source
    return list(source) if hasattr(source, "__next__") else source


@dataclass(frozen=True)
class Fit:
    """Makes a batch of arrays by name: inputs as the model takes them, and labels.

    `labels`: the names of label arrays -> "labels" or "labels.OUTPUT".
    """

    request: Request
    name: str
    labels: Mapping[str, str]

    @classmethod
    def of(cls, first: Arrays, labels: Mapping[str, str], name: str, request: Request) -> Fit:
        """For arrays with the names of `first`, of which `labels` are found to be labels.

        Raises:
            DataError: an input is missing.
        """
        names = {spec.name for spec in request.specs}
        missing, unknown = names - set(first), set(first) - names - set(labels)
        if missing:
            raise DataError(
                f"{name} has no array {_quoted(missing)}"
                + (f" but {_quoted(unknown)}" if unknown else "")
                + f": name the arrays like the model's inputs ({', '.join(sorted(names))}), {_saved(names)}"
            )
        return cls(request, name, labels)

    @property
    def names(self) -> list[str]:
        """The names of the inputs."""
        return [spec.name for spec in self.request.specs]

    def __call__(self, arrays: Arrays) -> Batch:
        """The batch of samples of one shape.

        Raises:
            DataError: a type or shape does not fit.
        """
        batch = Batch({name: self._input(arrays[name], name) for name in self.names}, self.labels_of(arrays))
        for labels in batch.labels.values():
            if not labels.ndim or len(labels) != len(batch):
                have = len(labels) if labels.ndim else "a single one"
                raise DataError(
                    f"{self.name} has labels for {have} of {len(batch)} samples: give one for each"
                )
        return batch

    @property
    def label_names(self) -> Collection[str]:
        """See `Prepare`."""
        return self.labels

    def labels_of(self, arrays: Arrays) -> Labels:
        """See `Prepare`."""
        return {
            given.removeprefix(LABELS).removeprefix("."): self._labels(arrays[key])
            for key, given in self.labels.items()
        }

    def _labels(self, labels: np.ndarray) -> np.ndarray:
        if labels.dtype.kind not in "iubfU":
            raise DataError(
                f"the labels of {self.name} have the type {labels.dtype}: give integer classes, float targets or texts"
            )
        return labels

    def _input(self, array: np.ndarray, name: str) -> np.ndarray:
        spec = next(spec for spec in self.request.specs if spec.name == name)
        kinds = {"f": "f", "O": "OUS"}.get(spec.dtype.kind, "iub")
        if array.dtype.kind not in kinds:
            raise DataError(
                f"array {name!r} of {self.name} has the type {array.dtype}, the input takes {type_name(spec.dtype)}: "
                f"{type_advice(array, spec.dtype)}"
            )
        self._check_shape(array.shape, name)
        # `check_finite` refuses what overflows.
        with np.errstate(over="ignore"):
            made = array.astype(spec.dtype, copy=False)
        if spec.dtype.kind in "iub" and array.dtype != spec.dtype and (made != array).any():
            wrong = array[made != array].flat[0]
            raise DataError(
                f"array {name!r} of {self.name} has the number {wrong}, which the input's type {spec.dtype} cannot "
                "hold: give numbers in its range"
            )
        return made

    def check_shapes(self, source: Source) -> None:
        """Check the shapes of samples that are known before they are read.

        Raises:
            DataError: one does not fit.
        """
        for name in self.names:
            for shape in source.sample_shapes(name):
                self._check_shape((len(source), *shape), name)

    def _check_shape(self, shape: Sequence[int], name: str) -> None:
        spec = next(spec for spec in self.request.row_specs if spec.name == name)
        if not fits(shape[1:], spec.shape[1:]):
            raise DataError(
                f"array {name!r} of {self.name} has shape {dims_of(shape[1:])}, the input takes "
                f"{dims_of(spec.shape[1:])}: {shape_advice(shape, spec)}"
            )


def _saved(names: set[str]) -> str:
    """The line that saves arrays by these names."""
    arrays = ", ".join(f"{name!r}: ..." for name in sorted(names))
    return f"for example numpy.savez('data.npz', **{{{arrays}, 'labels': ...}})"


def _quoted(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))

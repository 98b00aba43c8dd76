"""Data from files, functions or Python objects, read and checked against a model's inputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.config.declare import describe_source
from onnxprune.data.batches import concatenate
from onnxprune.data.dataset import Dataset
from onnxprune.data.readers import LABELS, forms, read_text
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError


def load_data(source: Any, specs: list[InputSpec]) -> Dataset:
    """Read all of a data source and check it against the model's inputs.

    `source`: a path or text as on the command line, a mapping {name: array}, or an iterable of such mappings (batches,
    with labels under "labels"), for example onnxruntime's CalibrationDataReader.

    Raises:
        DataError: it cannot be read, or names, dtypes or shapes do not fit.
    """
    name = describe_source(source) or ""
    if isinstance(source, (str, os.PathLike)):
        arrays = read_text(os.fspath(source), specs)
    elif isinstance(source, Mapping):
        arrays = {str(key): _as_array(array, str(key), name) for key, array in source.items()}
    elif isinstance(source, Iterable):
        arrays = concatenate(source, name)
    else:
        raise DataError(f"data of type {type(source).__name__} cannot be read: give {forms()}, or batches")
    return _fit(arrays, specs, name)


def repeatable(source: Any) -> Any:
    """A data source, or None, that can be read more than once: an iterator becomes a list."""
    if source is None or isinstance(source, str | os.PathLike | Mapping | Sequence):
        return source
    return list(source)


def _as_array(values: Any, key: str, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(
            f"{key!r} of {name} is not an array: {error}; models that take sequences are not supported"
        ) from None


def _fit(arrays: dict[str, np.ndarray], specs: list[InputSpec], name: str) -> Dataset:
    arrays = dict(arrays)
    names = [spec.name for spec in specs]
    labels = None if LABELS in names else arrays.pop(LABELS, None)
    missing, unknown = set(names) - set(arrays), set(arrays) - set(names)
    if missing:
        raise DataError(
            f"{name} has no array {_quoted(missing)}"
            + (f" but {_quoted(unknown)}" if unknown else "")
            + f": name the arrays like the model's inputs ({', '.join(names)})"
        )
    inputs = {spec.name: _fit_array(arrays[spec.name], spec, name) for spec in specs}
    lengths = {key: len(array) for key, array in inputs.items() if array.ndim}
    if labels is not None:
        lengths[LABELS] = len(labels)
    if len(set(lengths.values())) != 1:
        if labels is None and not _has_common_batch(specs):
            return Dataset(inputs, None, name, whole=True)
        counts = ", ".join(f"{key} {count}" for key, count in lengths.items())
        raise DataError(
            f"the arrays of {name} have different lengths ({counts}): give one row per sample in each"
        )
    if not next(iter(lengths.values())):
        raise DataError(f"{name} has no samples: give at least 2")
    if labels is not None and labels.dtype.kind not in "iubf":
        raise DataError(
            f"the labels of {name} have the type {labels.dtype}: give integer classes or float targets"
        )
    if labels is not None and labels.dtype.kind != "f" and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return Dataset(inputs, labels, name)


def _has_common_batch(specs: list[InputSpec]) -> bool:
    """Whether the first axes of all inputs can be the batch axis: not so for x [N, 8] with a state [2, N, 4]."""
    firsts = {spec.shape[0] for spec in specs if spec.shape}
    return len(firsts) == 1 or not any(isinstance(first, int) for first in firsts)


def _fit_array(array: np.ndarray, spec: InputSpec, name: str) -> np.ndarray:
    kinds = {"f": "f", "O": "OUS"}.get(spec.dtype.kind, "iub")
    if array.dtype.kind not in kinds:
        raise DataError(
            f"array {spec.name!r} of {name} has the type {array.dtype}, the input takes {spec.dtype}: preprocess it as "
            "in the training of the model"
        )
    fits = array.ndim == len(spec.shape) and all(
        not isinstance(want, int) or have == want
        for have, want in zip(array.shape[1:], spec.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join(
            ["N" if spec.shape else "", *("any" if d is None else str(d) for d in spec.shape[1:])]
        )
        have = ", ".join(map(str, array.shape))
        raise DataError(
            f"array {spec.name!r} of {name} has shape [{have}], the input takes [{wanted}]: reshape it"
        )
    return array.astype(spec.dtype, copy=False)


def _quoted(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))

"""Samples for fine-tuning, calibration and evaluation, which are read when they are needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from onnxprune.data.axes import FIRST_AXES, BatchAxes, relaid
from onnxprune.data.batch import Batch, Labels
from onnxprune.data.finite import check_finite
from onnxprune.data.ragged import alike, bytes_of, dense, joined_rows, taken
from onnxprune.data.source import Arrays, ArraySource, Source, ahead, checksum
from onnxprune.errors import DataError

LABELS = "labels"
# Read at once by `check`.
CHECKED_BYTES = 2**24


class Prepare(Protocol):
    """Makes a batch of what a source reads, of samples of one shape."""

    @property
    def label_names(self) -> Collection[str]:
        """The names of the arrays that are labels."""

    def labels_of(self, arrays: Arrays) -> Labels:
        """The labels of arrays with these names."""

    def __call__(self, arrays: Arrays) -> Batch: ...


@dataclass(frozen=True)
class Dataset:
    """Samples of a source: all of them, or those with the numbers of `index`, ascending.

    `prepare`: makes a batch of what the source reads; it checks names, types and shapes. `labeled`: whether there are
    labels. `axes` and `patience` as in `Batch`; `freed`: the axes of the model while it takes any number of samples.
    `notes`: sentences about the data for the summary of a job. `group`: so many samples in a row belong together, for
    example pairs. `label_offset`: the setting, for class numbers.
    """

    source: Source
    name: str
    prepare: Prepare
    labeled: bool = False
    index: np.ndarray | None = None
    axes: BatchAxes = FIRST_AXES
    freed: BatchAxes | None = None
    patience: float | None = None
    notes: tuple[str, ...] = ()
    group: int = 1
    label_offset: int = 0

    @classmethod
    def of(
        cls,
        inputs: Mapping[str, np.ndarray],
        labels: np.ndarray | Labels | None = None,
        name: str = "samples",
        axes: BatchAxes = FIRST_AXES,
    ) -> Dataset:
        """Arrays in memory, samples along the first axis; `labels`: of the first output, or by output."""
        by_output: Labels = (
            {} if labels is None else {"": labels} if isinstance(labels, np.ndarray) else labels
        )
        named = {label_name(output): array for output, array in by_output.items()}
        source = ArraySource({**inputs, **named}, name)
        return cls(source, name, Unchanged(tuple(named)), bool(by_output), axes=axes)

    def __len__(self) -> int:
        return len(self.source) if self.index is None else len(self.index)

    def numbers(self) -> np.ndarray:
        """The numbers of the samples in the source."""
        return np.arange(len(self.source)) if self.index is None else self.index

    def take(self, index: np.ndarray | slice, name: str | None = None) -> Dataset:
        """The samples at `index`, ascending; nothing is read."""
        return replace(self, index=self.numbers()[index], name=name or self.name)

    def spread(self, count: int) -> Dataset:
        """At most `count` samples, in whole groups spread evenly; of a sequential source the first ones."""
        if self.source.sequential:
            return self.take(slice(0, max(1, count // self.group) * self.group))
        last = max(len(self) // self.group, 1) - 1
        chosen = np.linspace(0, last, max(1, min(count // self.group, last + 1))).astype(int)
        return self.take(self._groups(np.unique(chosen)))

    def read(self) -> Batch:
        """All samples, in memory."""
        numbers = self.numbers()
        return self.as_batch(next(self.source.scan(numbers, max(len(self), 1))), numbers)

    def held(self, most: int) -> Dataset:
        """The same samples, in memory if their source is sequential and they have at most `most` bytes in all."""
        if not self.source.sequential or not len(self):
            return self
        first = self.source.read(self.numbers()[:1])
        if len(self) * sum(map(bytes_of, first.values())) > most:
            return self
        return replace(self, source=ArraySource(self.source.read(self.numbers()), self.name), index=None)

    def identity(self) -> int:
        """A checksum that tells datasets apart, without reading all samples."""
        return checksum({"numbers": self.numbers()}, self.source.identity())

    @property
    def run_axes(self) -> BatchAxes:
        """The axes of the model as it is now."""
        return self.axes if self.freed is None else self.freed

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, in batches of at most `size` that the model can be run on, see `Batch.runs`."""
        fixed = self.run_axes.size
        for batch in self._scanned(size if fixed is None else max(size // fixed, 1) * fixed):
            yield from batch.runs(size)

    def _scanned(self, size: int) -> Iterator[Batch]:
        """All samples in order, `size` at a time, of one or several shapes."""
        numbers = self.numbers()
        arrays = self.source.scan(numbers, size)
        for place, each in enumerate(ahead(arrays) if self.source.costly else arrays):
            yield self.as_batch(each, numbers[place * size : (place + 1) * size])

    def labels_alone(self, size: int) -> Iterator[tuple[np.ndarray, Labels]]:
        """The labels of all samples, of one shape each time, with the numbers of the samples in the source.

        Nothing, where they cannot be had without the inputs.
        """
        numbers = self.numbers()
        for start in range(0, len(numbers), size):
            some = numbers[start : start + size]
            arrays = self.source.read_alone(self.prepare.label_names, some)
            if not arrays:
                return
            for index in alike(arrays, ()):
                if index is None:
                    yield some, self.prepare.labels_of(arrays)
                else:
                    yield some[index], self.prepare.labels_of(parts_at(arrays, index))

    def check(self) -> None:
        """Read all samples once, where that is cheap: arrays in memory, and rows of files.

        Raises:
            DataError: one holds NaN or infinity.
        """
        if isinstance(self.source, ArraySource) and len(self):
            first = self.source.read(self.numbers()[:1])
            for _ in self._scanned(max(1, CHECKED_BYTES // max(1, sum(map(bytes_of, first.values()))))):
                pass

    def as_batch(self, arrays: Arrays, numbers: np.ndarray | None = None) -> Batch:
        """What the source read as one batch, of samples of one or several shapes; `numbers`: of them, where known.

        Raises:
            DataError: an input holds NaN or infinity.
        """
        parts = [
            self._batch(arrays, numbers)
            if index is None
            else self._batch(parts_at(arrays, index), None if numbers is None else numbers[index])
            for index in alike(arrays, ())
        ]
        if len(parts) == 1:
            return parts[0]
        inputs, labels, given = (
            {
                key: joined_rows([getattr(part, kind)[key] for part in parts])
                for key in getattr(parts[0], kind)
            }
            for kind in ("inputs", "labels", "given")
        )
        return replace(parts[0], inputs=inputs, labels=labels, given=given)

    def _batch(self, arrays: Arrays, numbers: np.ndarray | None) -> Batch:
        """What the source read, samples of one shape, as a batch of this dataset."""
        batch = self.prepare(arrays)
        inputs = batch.inputs
        check_finite(inputs, self.name, numbers, arrays)
        if self.freed is not None and self.freed.inputs != self.axes.inputs:
            inputs = {
                name: relaid(rows, self.axes.of(name), self.freed.of(name)) for name, rows in inputs.items()
            }
        return replace(batch, inputs=inputs, name=self.name, axes=self.run_axes, patience=self.patience)

    def split(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """A random split into (training, validation): `fraction` of the groups, but at least one, are for validation.

        Raises:
            DataError: there are fewer than two samples.
        """
        if len(self) < 2 * self.group:
            raise DataError(
                f"{self.name} has {len(self)} sample: give at least {2 * self.group}, one of them for validation"
            )
        groups = len(self) // self.group
        order = np.random.default_rng(seed).permutation(groups)
        validation = min(max(1, round(fraction * groups)), groups - 1)
        training, held = (self._groups(part) for part in (order[validation:], order[:validation]))
        return self.take(training), self.take(held, f"validation split, {100 * fraction:g}% of {self.name}")

    def _groups(self, numbers: np.ndarray) -> np.ndarray:
        """The samples of groups with these numbers, ascending."""
        return np.sort((numbers[:, None] * self.group + np.arange(self.group)).ravel())


def parts_at(arrays: Arrays, index: np.ndarray) -> Arrays:
    """The samples at `index`, which are of one shape."""
    return {key: dense(taken(array, index)) for key, array in arrays.items()}


def class_names(data: Dataset) -> tuple[str, ...]:
    """The names of the classes by number, where the data has names of them and not numbers."""
    return tuple(getattr(data.source, "class_names", ()))


def label_name(output: str) -> str:
    """The name of an array of labels: "labels", or "labels.OUTPUT"."""
    return f"{LABELS}.{output}" if output else LABELS


@dataclass(frozen=True)
class Unchanged:
    """Arrays that need no preparation; those that are no labels are inputs."""

    label_names: tuple[str, ...]

    def labels_of(self, arrays: Arrays) -> Labels:
        """See `Prepare`."""
        return {name.removeprefix(LABELS).removeprefix("."): arrays[name] for name in self.label_names}

    def __call__(self, arrays: Arrays) -> Batch:
        inputs = {name: array for name, array in arrays.items() if name not in self.label_names}
        return Batch(inputs, self.labels_of(arrays))


def class_axis(output_shape: tuple[int, ...], labels_shape: tuple[int, ...]) -> int | None:
    """The class axis of an output, for labels with one class number per sample (or position); None if they do not fit.

    (N, C) and (N,): 1; (N, T, C) and (N, T): 2; (N, C, H, W) and (N, H, W): 1. Where both fit, sequences have their
    classes last, and images first.
    """
    last, first = labels_shape == output_shape[:-1], labels_shape == (output_shape[0], *output_shape[2:])
    if last and not (first and len(output_shape) > 3):
        return len(output_shape) - 1
    return 1 if first and len(output_shape) > 2 else None

"""Samples for fine-tuning, calibration and evaluation, which are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.data.batch import Batch, Labels
from onnxprune.data.source import Arrays, ArraySource, Source, WholeSource, ahead, checksum
from onnxprune.errors import DataError

LABELS = "labels"


@dataclass(frozen=True)
class Dataset:
    """Samples of a source: all of them, or those with the numbers of `index`, ascending.

    `prepare`: makes a batch of what the source reads; it checks names, types and shapes. `labeled`: whether there are
    labels. `whole` and `patience` as in `Batch`. `notes`: sentences about the data for the summary of a job.
    """

    source: Source
    name: str
    prepare: Callable[[Arrays], Batch]
    labeled: bool = False
    index: np.ndarray | None = None
    whole: bool = False
    patience: float | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        inputs: Mapping[str, np.ndarray],
        labels: np.ndarray | Labels | None = None,
        name: str = "samples",
        whole: bool = False,
        patience: float | None = None,
    ) -> Dataset:
        """Arrays in memory; `labels`: of the first output, or by output."""
        by_output: Labels = (
            {} if labels is None else {"": labels} if isinstance(labels, np.ndarray) else labels
        )
        named = {label_name(output): array for output, array in by_output.items()}
        source = WholeSource(inputs) if whole else ArraySource({**inputs, **named}, name)
        return cls(source, name, Unchanged(), bool(by_output), whole=whole, patience=patience)

    def __len__(self) -> int:
        return len(self.source) if self.index is None else len(self.index)

    def numbers(self) -> np.ndarray:
        """The numbers of the samples in the source."""
        return np.arange(len(self.source)) if self.index is None else self.index

    def take(self, index: np.ndarray | slice, name: str | None = None) -> Dataset:
        """The samples at `index`, ascending; nothing is read."""
        if self.whole:
            return self
        return replace(self, index=self.numbers()[index], name=name or self.name)

    def spread(self, count: int) -> Dataset:
        """At most `count` samples, spread evenly."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)))

    def read(self) -> Batch:
        """All samples, in memory."""
        return next(self.batches(max(len(self), 1)))

    def identity(self) -> int:
        """A checksum that tells datasets apart, without reading all samples."""
        return checksum({"numbers": self.numbers()}, self.source.identity())

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, in batches of `size`; the last one may be smaller."""
        arrays = self.source.scan(self.numbers(), size)
        yield from map(self.batch, ahead(arrays) if self.source.costly else arrays)

    def batch(self, arrays: Arrays) -> Batch:
        """What the source read, as a batch of this dataset."""
        return replace(self.prepare(arrays), name=self.name, whole=self.whole, patience=self.patience)

    def split(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """A random split into (training, validation): `fraction` of the samples, but at least one, are for validation.

        Raises:
            DataError: there are fewer than two samples.
        """
        if len(self) < 2:
            raise DataError(
                f"{self.name} has {len(self)} sample: give at least 2, one of them for validation"
            )
        order = np.random.default_rng(seed).permutation(len(self))
        validation = min(max(1, round(fraction * len(self))), len(self) - 1)
        training = self.take(np.sort(order[validation:]))
        return training, self.take(
            np.sort(order[:validation]), f"validation split, {100 * fraction:g}% of {self.name}"
        )


def label_name(output: str) -> str:
    """The name of an array of labels: "labels", or "labels.OUTPUT"."""
    return f"{LABELS}.{output}" if output else LABELS


class Unchanged:
    """Arrays that need no preparation: labels by their names, all others are inputs."""

    def __call__(self, arrays: Arrays) -> Batch:
        labels = {
            key.removeprefix(LABELS).removeprefix("."): array
            for key, array in arrays.items()
            if key == LABELS or key.startswith(f"{LABELS}.")
        }
        inputs = {
            key: array for key, array in arrays.items() if not (key == LABELS or key.startswith(f"{LABELS}."))
        }
        return Batch(inputs, labels)


def class_axis(output_shape: tuple[int, ...], labels_shape: tuple[int, ...]) -> int | None:
    """The class axis of an output, for labels with one class number per sample (or position); None if they do not fit.

    (N, C) and (N,): 1; (N, T, C) and (N, T): 2; (N, C, H, W) and (N, H, W): 1.
    """
    if labels_shape == output_shape[:-1]:
        return len(output_shape) - 1
    if len(output_shape) > 2 and labels_shape == (output_shape[0], *output_shape[2:]):
        return 1
    return None

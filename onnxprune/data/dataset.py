"""Samples for fine-tuning, calibration and evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxprune.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """Samples along the first axis of every array: one array per input, and labels if there are any.

    A scalar belongs to every sample. `whole`: the arrays have no common first axis and form one sample. `patience`:
    seconds after which a run of a model on them is stopped; None: never.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    name: str
    whole: bool = False
    patience: float | None = None

    def __len__(self) -> int:
        return 1 if self.whole else next(len(array) for array in self.inputs.values() if array.ndim)

    def take(self, index: np.ndarray | slice, name: str | None = None) -> Dataset:
        """The samples at `index`."""
        if self.whole:
            return self
        inputs = {key: array[index] if array.ndim else array for key, array in self.inputs.items()}
        labels = None if self.labels is None else self.labels[index]
        return replace(self, inputs=inputs, labels=labels, name=name or self.name)

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


def class_axis(output_shape: tuple[int, ...], labels_shape: tuple[int, ...]) -> int | None:
    """The class axis of an output, for labels with one class number per sample (or position); None if they do not fit.

    (N, C) and (N,): 1; (N, T, C) and (N, T): 2; (N, C, H, W) and (N, H, W): 1.
    """
    if labels_shape == output_shape[:-1]:
        return len(output_shape) - 1
    if len(output_shape) > 2 and labels_shape == (output_shape[0], *output_shape[2:]):
        return 1
    return None

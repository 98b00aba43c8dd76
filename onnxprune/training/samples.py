"""Samples as torch tensors, mixup, and random numbers that depend only on the seed and the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from onnxprune.data.axes import FIRST_AXES, BatchAxes
from onnxprune.data.batch import Batch
from onnxprune.data.ragged import repeated
from onnxprune.data.specs import InputSpec

# The uses of random numbers; each has its own seeds.
ORDER, MIXTURE, DROPOUT, AUGMENTATION = range(4)

Labels = dict[str, Any]
"""By output, "" for the first one: int64, float32 or bool tensors, and arrays of texts."""

Input = torch.Tensor | np.ndarray


@dataclass(frozen=True)
class Samples:
    """Inputs in the model's order, and labels if there are any.

    Samples lie along the first axis, but for inputs that go with every sample, as `axes` says. After mixup, the inputs
    are share * a + (1 - share) * b, with the labels of both. `scored`: the labels for metrics, where those for the loss
    are others. `numbers`: which samples of the training data these are, if their inputs are the same in every epoch.
    Inputs of texts stay arrays.
    """

    inputs: tuple[Input, ...]
    labels: Labels = field(default_factory=dict)
    other_labels: Labels = field(default_factory=dict)
    share: float = 1.0
    scored: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: np.ndarray | None = None
    axes: BatchAxes = FIRST_AXES
    names: tuple[str, ...] = ()
    """Of the inputs."""

    @classmethod
    def of(cls, batch: Batch, specs: Sequence[InputSpec], numbers: np.ndarray | None = None) -> Samples:
        """A batch that one run is for, as tensors that share its memory."""
        names = tuple(spec.name for spec in specs)
        inputs = tuple(
            _given(np.asarray(batch.inputs[name][0]) if batch.axes.of(name) is None else batch.inputs[name])
            for name in names
        )
        labels = {key: _label_tensor(array) for key, array in (batch.given or batch.labels).items()}
        scored = batch.labels if batch.given else {}
        return cls(inputs, labels, scored=scored, numbers=numbers, axes=batch.axes, names=names)

    def batch(self, name: str) -> Batch:
        """As arrays again, for a metric."""
        arrays = zip(self.names, map(_array, self.inputs), strict=True)
        inputs = {
            key: repeated(array, len(self)) if self.axes.of(key) is None else array for key, array in arrays
        }
        labels = {key: _array(labels) for key, labels in self.labels.items()}
        return Batch(inputs, self.scored or labels, name, self.axes)

    def __len__(self) -> int:
        batched = (tensor for key, tensor in zip(self.names, self.inputs, strict=True) if self.counts(key))
        return next((len(tensor) for tensor in batched), 1)

    def counts(self, name: str) -> bool:
        """Whether an input has an axis of samples."""
        return self.axes.of(name) is not None

    def feeds(self) -> tuple[Input, ...]:
        """The tensors, and arrays of texts, that the model takes."""
        return tuple(
            _moved(given, axis) if (axis := self.axes.of(key)) else given
            for key, given in zip(self.names, self.inputs, strict=True)
        )

    def rows(self, outputs: Sequence[torch.Tensor], names: Sequence[str]) -> tuple[torch.Tensor, ...]:
        """The outputs of the model with samples along the first axis; further values are as they are."""
        if self.axes.whole:
            return tuple(output[None] for output in outputs)
        axes = [
            self.axes.output_axis(name, output.shape, len(self))
            for name, output in zip(names, outputs, strict=False)
        ]
        moved = (
            output.movedim(axis, 0) if axis else output for axis, output in zip(axes, outputs, strict=False)
        )
        return (*moved, *outputs[len(axes) :])

    def to(self, device: torch.device) -> Samples:
        """On a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Samples:
        labels, others = (
            {key: change(part) if isinstance(part, torch.Tensor) else part for key, part in each.items()}
            for each in (self.labels, self.other_labels)
        )
        inputs = tuple(change(each) if isinstance(each, torch.Tensor) else each for each in self.inputs)
        return replace(self, inputs=inputs, labels=labels, other_labels=others)


def mix(batch: Samples, random: torch.Generator) -> Samples:
    """Mix every sample with another of its batch, with one random share (mixup, Zhang et al. 2018, alpha = 1)."""
    share = float(torch.rand((), generator=random))
    other = torch.randperm(len(batch), generator=random)
    inputs = tuple(
        torch.lerp(each[other], each, share) if isinstance(each, torch.Tensor) and batch.counts(key) else each
        for key, each in zip(batch.names, batch.inputs, strict=True)
    )
    others = {
        key: labels[other if isinstance(labels, torch.Tensor) else other.numpy()]
        for key, labels in batch.labels.items()
    }
    return Samples(inputs, batch.labels, others, share, axes=batch.axes, names=batch.names)


def random(*seeds: int) -> torch.Generator:
    """A random number generator on the CPU, seeded by several numbers."""
    return torch.Generator().manual_seed(random_seed(*seeds))


def random_seed(*seeds: int) -> int:
    """One seed made of several numbers."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)


def _moved(given: Input, axis: int) -> Input:
    return given.movedim(0, axis) if isinstance(given, torch.Tensor) else np.moveaxis(given, 0, axis)


def _array(given: Input) -> np.ndarray:
    return given.cpu().numpy() if isinstance(given, torch.Tensor) else given


def _given(array: np.ndarray) -> Input:
    return array if array.dtype.kind in "OSU" else _tensor(array)


def _tensor(array: np.ndarray) -> torch.Tensor:
    # torch warns of arrays that it must not write to, such as broadcast or mapped ones.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _label_tensor(labels: np.ndarray) -> torch.Tensor | np.ndarray:
    if labels.dtype.kind not in "iuf":
        return _tensor(labels) if labels.dtype == bool else labels
    return _tensor(labels).to(torch.float32 if labels.dtype.kind == "f" else torch.int64)

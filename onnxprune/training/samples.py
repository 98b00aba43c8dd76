"""Training samples as torch tensors: shuffled batches and mixup, which depend only on the seed and the update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from onnxprune.data.dataset import Dataset
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError

# The uses of random numbers; each has its own seeds.
ORDER, MIXTURE, DROPOUT = range(3)


@dataclass(frozen=True)
class Samples:
    """Inputs in the model's order, samples along the first axis; labels: int64 (classes) or float32 (targets)."""

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None

    @classmethod
    def of(cls, data: Dataset, specs: list[InputSpec]) -> Samples:
        """A dataset as tensors that share its memory."""
        inputs = tuple(torch.from_numpy(data.inputs[spec.name]) for spec in specs)
        if data.labels is None:
            return cls(inputs, None)
        kind = torch.float32 if data.labels.dtype.kind == "f" else torch.int64
        return cls(inputs, torch.from_numpy(data.labels).to(kind))

    def __len__(self) -> int:
        return next(len(tensor) for tensor in self.inputs if tensor.ndim)

    def take(self, index: torch.Tensor | slice) -> Samples:
        labels = None if self.labels is None else self.labels[index]
        return Samples(tuple(tensor[index] if tensor.ndim else tensor for tensor in self.inputs), labels)

    def to(self, device: torch.device) -> Samples:
        labels = None if self.labels is None else self.labels.to(device)
        return Samples(tuple(tensor.to(device) for tensor in self.inputs), labels)


@dataclass(frozen=True)
class Mixture:
    """A batch whose inputs are share * a + (1 - share) * b, with the labels of both."""

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None
    other_labels: torch.Tensor | None
    share: float

    def take(self, index: slice) -> Mixture:
        """Some of the samples."""
        first = Samples(self.inputs, self.labels).take(index)
        other = None if self.other_labels is None else self.other_labels[index]
        return Mixture(first.inputs, first.labels, other, self.share)

    def to(self, device: torch.device) -> Mixture:
        first = Samples(self.inputs, self.labels).to(device)
        other = None if self.other_labels is None else self.other_labels.to(device)
        return Mixture(first.inputs, first.labels, other, self.share)


class Batches:
    """Shuffled batches by number of the update; a batch does not depend on earlier ones, so training can be resumed.

    An incomplete last batch of an epoch is dropped. `fixed_size`: the fixed batch size of the model, if it has one.
    """

    def __init__(self, samples: Samples, size: int, seed: int, fixed_size: int | None = None):
        self.fixed_size = fixed_size
        self.size = min(fixed_size or size, len(samples))
        self.an_epoch = len(samples) // self.size
        self.samples = samples
        self._seed = seed
        self._epoch = -1
        self._order = torch.empty(0)

    def at(self, update: int) -> Samples:
        """The batch of an update, counted from 0."""
        epoch, position = divmod(update, self.an_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(len(self.samples), generator=random(self._seed, ORDER, epoch))
        return self.samples.take(self._order[position * self.size : (position + 1) * self.size])


def whole_batches(data: Dataset, fixed_size: int | None) -> Dataset:
    """The data without an incomplete last batch, if the model has a fixed batch size.

    Raises:
        DataError: there are fewer samples than one batch.
    """
    if fixed_size is None:
        return data
    if len(data) < fixed_size:
        raise DataError(
            f"{data.name} has {len(data)} samples, and the model has a fixed batch size of {fixed_size}: give more "
            "samples"
        )
    return data.take(slice(0, len(data) // fixed_size * fixed_size))


def random(*seeds: int) -> torch.Generator:
    """A random number generator on the CPU, seeded by several numbers."""
    return torch.Generator().manual_seed(random_seed(*seeds))


def random_seed(*seeds: int) -> int:
    """One seed made of several numbers."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)


def mix(batch: Samples, random: torch.Generator) -> Mixture:
    """Mix every sample with another of its batch, with one random share (mixup, Zhang et al. 2018, alpha = 1)."""
    share = float(torch.rand((), generator=random))
    other = batch.take(torch.randperm(len(batch), generator=random))
    inputs = tuple(torch.lerp(b, a, share) for a, b in zip(batch.inputs, other.inputs, strict=True))
    return Mixture(inputs, batch.labels, other.labels, share)


def unmixed(batch: Samples) -> Mixture:
    """The batch without mixup."""
    return Mixture(batch.inputs, batch.labels, None, 1.0)

"""Training samples as torch tensors: shuffled batches without end, and mixtures of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from onnxprune.data import Dataset, InputSpec


@dataclass(frozen=True)
class Samples:
    """Inputs in the model's order, samples along the first axis; labels int64 (classes) or float32 (targets)."""

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

    def batches(self, size: int, random: torch.Generator) -> Iterator[Samples]:
        """Shuffled batches, epoch after epoch without end; what does not fill the last of an epoch is left out."""
        size = min(size, len(self))
        while True:
            order = torch.randperm(len(self), generator=random)
            for start in range(0, len(self) - size + 1, size):
                yield self.take(order[start : start + size])


@dataclass(frozen=True)
class Mixture:
    """A batch whose inputs are share * a + (1 - share) * b, with the labels of both."""

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None
    other_labels: torch.Tensor | None
    share: float


def mix(batch: Samples, random: torch.Generator) -> Mixture:
    """Mix every sample with another of its batch, all by one random share (mixup, Zhang et al. 2018, alpha = 1)."""
    share = float(torch.rand((), generator=random))
    other = batch.take(torch.randperm(len(batch), generator=random))
    inputs = tuple(torch.lerp(b, a, share) for a, b in zip(batch.inputs, other.inputs, strict=True))
    return Mixture(inputs, batch.labels, other.labels, share)


def unmixed(batch: Samples) -> Mixture:
    """The batch as it is."""
    return Mixture(batch.inputs, batch.labels, None, 1.0)

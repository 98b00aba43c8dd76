"""Samples as torch tensors, mixup, and random numbers that depend only on the seed and the update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from onnxprune.data.batch import Batch
from onnxprune.data.specs import InputSpec

# The uses of random numbers; each has its own seeds.
ORDER, MIXTURE, DROPOUT, AUGMENTATION = range(4)

Labels = dict[str, torch.Tensor]
"""By output, "" for the first one: int64 (classes), bool (yes or no for each class), or float32 (targets)."""

Input = torch.Tensor | np.ndarray


@dataclass(frozen=True)
class Samples:
    """Inputs in the model's order, samples along the first axis, and labels if there are any; `texts` are labels too.

    Inputs of texts stay arrays.

    After mixup, the inputs are share * a + (1 - share) * b, with the labels of both. `numbers`: which samples of the
    training data these are, if their inputs are the same in every epoch.
    """

    inputs: tuple[Input, ...]
    labels: Labels = field(default_factory=dict)
    other_labels: Labels = field(default_factory=dict)
    share: float = 1.0
    texts: dict[str, np.ndarray] = field(default_factory=dict)
    numbers: np.ndarray | None = None

    @classmethod
    def of(cls, batch: Batch, specs: Sequence[InputSpec], numbers: np.ndarray | None = None) -> Samples:
        """A batch as tensors that share its memory."""
        given = (batch.inputs[spec.name] for spec in specs)
        inputs = tuple(array if array.dtype.kind in "OSU" else _tensor(array) for array in given)
        labels = {
            key: _label_tensor(array) for key, array in batch.labels.items() if array.dtype.kind in "biuf"
        }
        texts = {key: batch.labels[key] for key in batch.labels.keys() - labels.keys()}
        return cls(inputs, labels, texts=texts, numbers=numbers)

    def batch(self, specs: Sequence[InputSpec], name: str) -> Batch:
        """As arrays again, for a metric."""
        inputs = {spec.name: _array(given) for spec, given in zip(specs, self.inputs, strict=True)}
        labels = {key: tensor.cpu().numpy() for key, tensor in self.labels.items()}
        return Batch(inputs, labels | self.texts, name)

    def __len__(self) -> int:
        return next(len(tensor) for tensor in self.inputs if tensor.ndim)

    def to(self, device: torch.device) -> Samples:
        """On a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Samples:
        labels, others = (
            {key: change(tensor) for key, tensor in each.items()} for each in (self.labels, self.other_labels)
        )
        inputs = tuple(change(each) if isinstance(each, torch.Tensor) else each for each in self.inputs)
        return replace(self, inputs=inputs, labels=labels, other_labels=others)


def mix(batch: Samples, random: torch.Generator) -> Samples:
    """Mix every sample with another of its batch, with one random share (mixup, Zhang et al. 2018, alpha = 1)."""
    share = float(torch.rand((), generator=random))
    other = torch.randperm(len(batch), generator=random)
    inputs = tuple(
        torch.lerp(each[other], each, share) if isinstance(each, torch.Tensor) and each.ndim else each
        for each in batch.inputs
    )
    others = {key: labels[other] for key, labels in batch.labels.items()}
    return Samples(inputs, batch.labels, others, share)


def random(*seeds: int) -> torch.Generator:
    """A random number generator on the CPU, seeded by several numbers."""
    return torch.Generator().manual_seed(random_seed(*seeds))


def random_seed(*seeds: int) -> int:
    """One seed made of several numbers."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)


def _array(given: Input) -> np.ndarray:
    return given.cpu().numpy() if isinstance(given, torch.Tensor) else given


def _tensor(array: np.ndarray) -> torch.Tensor:
    # torch warns of arrays that it must not write to, such as broadcast or mapped ones.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _label_tensor(labels: np.ndarray) -> torch.Tensor:
    if labels.dtype == bool:
        return _tensor(labels)
    return _tensor(labels).to(torch.float32 if labels.dtype.kind == "f" else torch.int64)

"""BatchNormalization as a torch module, and the measuring of its statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onnxprune.training.module.running import run


class BatchNorm(nn.Module):
    """ONNX BatchNormalization that in training uses the statistics of the batch and updates the running ones."""

    def __init__(self, epsilon: float, momentum: float, learns: bool):
        super().__init__()
        self.epsilon = epsilon
        self.momentum = momentum
        self.learns = learns

    def train(self, mode: bool = True) -> BatchNorm:
        return super().train(mode and self.learns)

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """x: (N, C, ...); mean and variance (C,) are updated in place while training.

        One value for each channel, of a run of one sample, has no statistics.
        """
        training = self.training and x.numel() > x.shape[1]
        return F.batch_norm(x, mean, variance, scale, bias, training, self.momentum, self.epsilon)


def re_estimate(norms: Sequence[BatchNorm], batches: Iterable[tuple[Any, ...]], module: nn.Module) -> None:
    """Set the statistics of norms to their mean over batches of inputs."""
    if not norms:
        return
    before = [(norm.momentum, norm.learns) for norm in norms]
    with torch.no_grad():
        for count, inputs in enumerate(batches, 1):
            for norm in norms:
                norm.momentum, norm.training = 1 / count, True
            run(module, inputs)
    for norm, (momentum, learns) in zip(norms, before, strict=True):
        norm.momentum, norm.learns, norm.training = momentum, learns, False


class _Moments:
    """The count, sums and sums of squares by channel of what goes into a norm, in double precision."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """x: (N, C, ...)."""
        rows = x.detach().double().movedim(1, 0).flatten(1)
        count = torch.full_like(rows[:, 0], rows.shape[1])
        sums = torch.stack((count, rows.sum(1), rows.square().sum(1)))
        self.sums = sums if self.sums is None else self.sums + sums


def standardize(
    module: nn.Module,
    norms: Sequence[tuple[BatchNorm, Sequence[str]]],
    batches: Iterable[tuple[Any, ...]],
    mean_of: Callable[[Tensor], Tensor],
) -> None:
    """Give norms the statistics of their inputs over batches; scale and bias change so that the function does not.

    `norms`: with the paths in the module of their scale, bias, mean and variance; `mean_of`: over all processes.
    """
    moments = [_Moments() for _ in norms]
    hooks = [
        norm.register_forward_pre_hook(partial(_see, moment))
        for (norm, _), moment in zip(norms, moments, strict=True)
    ]
    module.eval()
    with torch.no_grad():
        for inputs in batches:
            run(module, inputs)
        for hook in hooks:
            hook.remove()
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        for (norm, paths), moment in zip(norms, moments, strict=True):
            assert moment.sums is not None
            scale, bias, mean, variance = (tensors[path] for path in paths)
            count, total, squares = mean_of(moment.sums)
            new_mean = total / count
            new_variance = (squares / count - new_mean.square()).clamp(min=0)
            factor = scale / torch.sqrt(variance.double() + norm.epsilon)
            bias.add_((new_mean - mean) * factor)
            scale.copy_(factor * torch.sqrt(new_variance + norm.epsilon))
            mean.copy_(new_mean)
            variance.copy_(new_variance)


def _see(moments: _Moments, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
    moments.add(inputs[0])

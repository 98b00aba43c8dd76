"""Reconstruction of a part of a model over several layers: its remaining weights are trained towards given outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn

from onnxprune.errors import DataError
from onnxprune.system.progress import Progress
from onnxprune.training.module.exchange import borrowed
from onnxprune.training.module.graph import channels_last, to_torch
from onnxprune.training.module.running import run

Arrays = Sequence[np.ndarray]
# The evaluations on validation inputs, of which the best state is kept.
EVALUATIONS = 10
WARMUP = 0.1
# Of the steps, so many come first, on a schedule of their own and shorter by a factor: long ones raise the loss before
# it falls. Where the validation loss then falls by less than a share of itself, the other steps are left out.
PROBE, PROBE_RATE, LEAST_GAIN = 1 / 8, 1 / 4, 0.005
# Positions are fractions.
EXACT = 1e-9


@dataclass(frozen=True)
class Runs:
    """Inputs of a part, and what its outputs are to be: of each run of the graph, in the order of its inputs, outputs.

    `samples`: of a run.
    """

    inputs: Sequence[Arrays]
    targets: Sequence[Arrays]
    samples: int


@dataclass(frozen=True)
class Descent:
    """How the weights are trained: `steps` of Adam on `batch` samples, each `rate` times the size of an element.

    `seconds`: the time for all of them; with less than they need, there are fewer.
    """

    steps: int
    batch: int
    rate: float
    seed: int
    seconds: float | None = None

    def part(self, steps: int, factor: float) -> Descent:
        """Some of the steps, shorter by a factor, in their part of the time."""
        seconds = None if self.seconds is None else self.seconds * steps / max(self.steps, 1)
        return replace(self, steps=steps, rate=factor * self.rate, seconds=seconds)

    def position(self, step: int, since: float) -> float:
        """How much of it is over after a step, in (0, 1]; `since`: seconds from the start."""
        passed = 0.0 if self.seconds is None else since / max(self.seconds, 1e-9)
        return min(max(step / self.steps, passed), 1.0)


@dataclass(frozen=True)
class Fitted:
    """The constants that were trained, by name, the loss on validation runs before and after, and the steps made."""

    arrays: dict[str, np.ndarray]
    before: float
    after: float
    steps: int


def fit(
    part: ir.Model,
    sizes: Mapping[str, np.ndarray],
    training: Runs,
    held: Runs,
    how: Descent,
    progress: Progress = lambda fraction: None,
) -> Fitted:
    """Train constants of a part of a model, by name; `sizes`: of their elements, 0 for those that stay zero.

    The loss is the squared distance of the outputs from the targets, relative to the targets' variance, mean over the
    outputs. The state with the least loss on the runs `held` is returned, which may be the first. The first
    steps tell whether the others are worth their time.

    Raises:
        UnsupportedOperatorError: an operator has no entry in the table.
    """
    module = channels_last(to_torch(part))
    parameters = {
        value.name or "": parameter
        for value, parameter in borrowed(module, part).items()
        if value.name in sizes
    }
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    scales = _variances(training.targets)
    train, valid = (
        list(zip(*map(_tensors, (some.inputs, some.targets)), strict=True)) for some in (training, held)
    )
    before = best = _mean_loss(module, valid, scales)
    state = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    adam = Adam({parameter: torch.from_numpy(sizes[name]) for name, parameter in parameters.items()})
    if not parameters:
        return Fitted({}, before, before, 0)
    together = max(1, round(how.batch / training.samples))
    order = _shuffled(len(train), np.random.default_rng(how.seed))
    probe = math.ceil(PROBE * how.steps)
    made = 0
    for stage in (how.part(probe, PROBE_RATE), how.part(how.steps - probe, 1.0)):
        evaluations = EVALUATIONS if made else 1
        before_stage = probe if made else 0
        begun, step, position = time.monotonic(), 0, 0.0
        while position < 1 and stage.steps:
            step += 1
            for _ in range(together):
                inputs, targets = train[next(order)]
                loss = _loss(run(module, inputs), targets, scales)
                if not loss.requires_grad:
                    return Fitted({}, before, before, 0)
                (loss / together).backward()
            last, position = position, stage.position(step, time.monotonic() - begun)
            adam.step(stage.rate * _pace(position))
            progress((before_stage + position * stage.steps) / how.steps)
            due = int(position * evaluations + EXACT) > int(last * evaluations + EXACT)
            loss_now = _mean_loss(module, valid, scales) if due else math.inf
            # Not "not >=": NaN is worse.
            if loss_now < best:
                best = loss_now
                state = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        made += step
        if best > (1 - LEAST_GAIN) * before:
            break
    arrays = {name: tensor.contiguous().numpy() for name, tensor in state.items()} if best < before else {}
    return Fitted(arrays, before, best, made)


class Adam:
    """Adam (Kingma & Ba 2015) with steps in proportion to the size of each element.

    A folded norm has scaled each filter, so that one step size for all would be too long for some and too short for
    others.
    """

    FIRST, SECOND, TINY = 0.9, 0.99, 1e-12

    def __init__(self, sizes: Mapping[nn.Parameter, torch.Tensor]):
        """`sizes`: of the elements of each parameter, broadcast."""
        self._sizes = sizes
        self._moments = {
            parameter: (torch.zeros_like(parameter), torch.zeros_like(parameter)) for parameter in sizes
        }
        self._count = 0

    def step(self, rate: float) -> None:
        """Make a step along the gradients, and clear them."""
        self._count += 1
        corrections = (1 - self.FIRST**self._count, 1 - self.SECOND**self._count)
        with torch.no_grad():
            for parameter, (first, second) in self._moments.items():
                if parameter.grad is None:
                    continue
                first.lerp_(parameter.grad, 1 - self.FIRST)
                second.lerp_(parameter.grad.square(), 1 - self.SECOND)
                direction = first / corrections[0] / ((second / corrections[1]).sqrt() + self.TINY)
                parameter.sub_(rate * self._sizes[parameter] * direction)
                parameter.grad = None


def _pace(position: float) -> float:
    """The learning rate at a position in (0, 1], relative to the largest: linear warmup, then along a cosine to 0."""
    return min(position / WARMUP, 1.0) * (1 + math.cos(math.pi * position)) / 2


def _tensors(runs: Sequence[Arrays]) -> list[tuple[torch.Tensor, ...]]:
    return [tuple(torch.from_numpy(np.asarray(array, order="C")) for array in run) for run in runs]


def _variances(runs: Sequence[Arrays]) -> list[float]:
    """The variance of each output over all runs."""
    return [
        float(np.mean([np.var(array, dtype=np.float64) for array in arrays])) or 1.0
        for arrays in zip(*runs, strict=True)
    ]


def _loss(
    outputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], scales: Sequence[float]
) -> torch.Tensor:
    if any(output.shape != target.shape for output, target in zip(outputs, targets, strict=True)):
        raise DataError(
            "the number of values that the network finds depends on its weights, so they have no targets"
        )
    parts = [
        (output - target.to(output.dtype)).square().mean() / scale
        for output, target, scale in zip(outputs, targets, scales, strict=True)
    ]
    return torch.stack(parts).mean()


def _mean_loss(
    module: fx.GraphModule,
    runs: Sequence[tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]],
    scales: Sequence[float],
) -> float:
    with torch.no_grad():
        return float(
            np.mean([float(_loss(run(module, inputs), targets, scales)) for inputs, targets in runs])
        )


def _shuffled(count: int, random: np.random.Generator) -> Iterator[int]:
    """All numbers below `count` in random order, over and over."""
    while True:
        yield from map(int, random.permutation(count))

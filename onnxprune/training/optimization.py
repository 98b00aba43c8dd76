"""The optimizer, its learning rate schedule, and the regularization of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from onnxprune.config.declare import settled
from onnxprune.config.training import TrainingSettings

# With "step", the learning rate is multiplied by `STEP_FACTOR` at each of these fractions of the training.
MILESTONES = (0.5, 0.75)
STEP_FACTOR = 0.1
# With "rewind", the warm-up is at most this fraction of the updates between two pruning steps: one tenth.
REWIND_WARMUP = 10


def make_optimizer(
    parameters: Sequence[nn.Parameter], settings: TrainingSettings, further: Sequence[dict] = ()
) -> torch.optim.Optimizer:
    """The optimizer of the settings, with L2 on weights only; decoupled for AdamW (Loshchilov & Hutter 2019).

    `further`: groups of other parameters, whose `share` multiplies the learning rate.
    """
    decay = settled(settings.weight_decay) if settings.regularization == "l2" else 0.0
    groups = [
        {"params": [each for each in parameters if is_weight(each)], "weight_decay": decay},
        {"params": [each for each in parameters if not is_weight(each)], "weight_decay": 0.0},
        *further,
    ]
    peak = settled(settings.learning_rate)
    return _OPTIMIZERS[settings.optimizer]([group for group in groups if group["params"]], peak, settings)


def is_weight(parameter: nn.Parameter) -> bool:
    """Whether a parameter is a weight, not a bias or a norm: more than one axis is longer than 1."""
    return sum(size > 1 for size in parameter.shape) > 1


def learning_rate(
    settings: TrainingSettings, update: float, updates: int, pruned: Sequence[int] = ()
) -> float:
    """The learning rate of an update, counted from 0: linear warm-up times the schedule.

    A schedule is laid over the whole training; "rewind" over each part of it between two pruning steps, which are made
    after the updates `pruned` (learning-rate rewinding, Renda et al. 2020, arXiv 2003.02389).
    """
    begin, end, warmup = 0, updates, settled(settings.warmup)
    if settings.learning_rate_schedule == "rewind":
        ends = [each for each in pruned if 0 < each < updates]
        begin = max((each for each in ends if each <= update), default=0)
        end = min((each for each in ends if each > update), default=updates)
        warmup = min(warmup, (end - begin) // REWIND_WARMUP)
    warm = min(1.0, (update - begin + 1) / max(warmup, 1))
    fall = _FALLS[settings.learning_rate_schedule]((update - begin) / (end - begin))
    return settled(settings.learning_rate) * warm * fall


def forget(optimizer: torch.optim.Optimizer | None, elements: Mapping[nn.Parameter, torch.Tensor]) -> None:
    """Zero what the optimizer has gathered about these elements (bool, of the parameters' shapes)."""
    if optimizer is None:
        return
    for parameter, chosen in elements.items():
        for gathered in optimizer.state.get(parameter, {}).values():
            if isinstance(gathered, torch.Tensor) and gathered.shape == parameter.shape:
                gathered.masked_fill_(chosen, 0)


def penalize(parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> None:
    """Add the gradient S * sign(w) of the L1 penalty S * |w| to that of weights; the optimizer applies L2."""
    strength = settled(settings.weight_decay)
    if settings.regularization != "l1" or not strength:
        return
    for parameter in parameters:
        if parameter.grad is not None and is_weight(parameter):
            parameter.grad.add_(parameter.detach().sign(), alpha=strength)


def _half_cosine(part: float) -> float:
    return (1 + math.cos(math.pi * part)) / 2


def _steps(part: float) -> float:
    return STEP_FACTOR ** sum(part >= milestone for milestone in MILESTONES)


def _constant(part: float) -> float:
    return 1.0


_FALLS: dict[str, Callable[[float], float]] = {
    "cosine": _half_cosine,
    "step": _steps,
    "constant": _constant,
    "rewind": _half_cosine,
}
_OPTIMIZERS: dict[str, Callable[[list[dict], float, TrainingSettings], torch.optim.Optimizer]] = {
    "adam": lambda groups, peak, settings: torch.optim.Adam(groups, peak, fused=True),
    "adamw": lambda groups, peak, settings: torch.optim.AdamW(groups, peak, fused=True),
    "sgd": lambda groups, peak, settings: torch.optim.SGD(
        groups, peak, settings.momentum, nesterov=settings.momentum > 0, fused=True
    ),
}

"""How weights are updated: the optimizer, its learning rate, and the penalty on the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from onnxprune.config.training import TrainingSettings

# With steps, the learning rate falls to a tenth after each of these shares of the training.
MILESTONES = (0.5, 0.75)
STEP_FACTOR = 0.1


def make_optimizer(parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer of the settings, with L2 on weights alone; AdamW's is decoupled (Loshchilov & Hutter 2019)."""
    decay = settings.weight_decay if settings.regularization == "l2" else 0.0
    groups = [
        {"params": [each for each in parameters if is_weight(each)], "weight_decay": decay},
        {"params": [each for each in parameters if not is_weight(each)], "weight_decay": 0.0},
    ]
    return _OPTIMIZERS[settings.optimizer]([group for group in groups if group["params"]], settings)


def is_weight(parameter: nn.Parameter) -> bool:
    """Whether a parameter maps one axis to another, as biases and norms do not, however many axes they are given."""
    return sum(size > 1 for size in parameter.shape) > 1


def learning_rate(settings: TrainingSettings, update: int, updates: int) -> float:
    """The learning rate of an update, counted from 0: a linear warm-up times the schedule over the whole job."""
    warmup = min(1.0, (update + 1) / max(settings.warmup, 1))
    return settings.learning_rate * warmup * _FALLS[settings.learning_rate_schedule](update / updates)


def penalize(parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> None:
    """Add the gradient of L1, S * sign(w) for S * |w|, to that of weights; L2 is the optimizer's."""
    if settings.regularization != "l1" or not settings.weight_decay:
        return
    for parameter in parameters:
        if parameter.grad is not None and is_weight(parameter):
            parameter.grad.add_(parameter.detach().sign(), alpha=settings.weight_decay)


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
}
_OPTIMIZERS: dict[str, Callable[[list[dict], TrainingSettings], torch.optim.Optimizer]] = {
    "adam": lambda groups, settings: torch.optim.Adam(groups, settings.learning_rate, fused=True),
    "adamw": lambda groups, settings: torch.optim.AdamW(groups, settings.learning_rate, fused=True),
    "sgd": lambda groups, settings: torch.optim.SGD(
        groups, settings.learning_rate, settings.momentum, nesterov=settings.momentum > 0, fused=True
    ),
}

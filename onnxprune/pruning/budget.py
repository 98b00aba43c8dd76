"""The rate at which what is left costs what was asked for: so many multiply-adds, or so many bytes of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from onnxprune.config.pruning import PruningSettings
from onnxprune.errors import SettingError
from onnxprune.model.weights import Weight
from onnxprune.pruning.allocation import allocate
from onnxprune.pruning.masks import make_masks
from onnxprune.pruning.rates import Curve

# Halvings of the interval that the rate is in: to a ten-thousandth.
HALVINGS = 14
HIGHEST = 0.9999
# A size this far below what was asked for is near enough.
NEAR = 0.01


@dataclass(frozen=True)
class Budget:
    """What was asked for, what of it no pruning changes, and what a weight costs at a density (0 to 1)."""

    flag: str
    asked: float
    fixed: float
    cost: Callable[[Weight, float], float]


def of_multiply_adds(weights: Sequence[Weight], share: float, costs: Mapping[str, int], total: int) -> Budget:
    """A share of a model's multiply-adds, those with weights that are zero not counted.

    `costs`: of the weights when dense, by name; `total`: of the whole model.
    """
    fixed = total - sum(costs[weight.name] for weight in weights)
    return Budget(
        f"--flops {share:g}", share * total, fixed, lambda weight, density: density * costs[weight.name]
    )


Settings = TypeVar("Settings", bound=PruningSettings)


def settled(
    weights: Sequence[Weight],
    settings: Settings,
    budget: Budget,
    curves: Mapping[str, Curve] | None,
    costs: Mapping[str, float] | None,
) -> Settings:
    """The settings with the lowest rate, shared out as they say, that stays within a budget.

    `curves` and `costs` as in `allocate`.

    Raises:
        SettingError: no rate stays within it.
    """
    present = {weight.name: weight.nonzero() / max(weight.size, 1) for weight in weights}

    def at(rate: float) -> Settings:
        return replace(settings, rate=rate, flops=None, bytes=None)

    def spent(rate: float) -> float:
        kept = present | _densities(weights, at(rate), curves, costs)
        return budget.fixed + sum(
            budget.cost(weight, min(kept[weight.name], present[weight.name])) for weight in weights
        )

    if spent(HIGHEST) > budget.asked:
        raise SettingError(
            f"{budget.flag} is out of reach: {spent(HIGHEST):,.0f} would be left with next to no weights; "
            f"{budget.fixed:,.0f} of that no pruning of single weights changes, excluded layers have the rest"
        )
    low, high = 0.0, HIGHEST
    if spent(low) <= budget.asked:
        return at(low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle) <= budget.asked else (middle, high)
    return at(high)


def lowest_rate(size: Callable[[float], float], most: float, dense: float, least: float) -> float:
    """The lowest rate at which `size`, which falls with it, is at most `most`, or less by no more than `NEAR`.

    `dense` and `least`: the sizes at the rates 0 and `HIGHEST`.
    """
    if dense <= most:
        return 0.0
    aim = (1 - NEAR / 2) * most
    low, high, fits = 0.0, HIGHEST, least
    rate, found = low, dense
    for turn in range(HALVINGS):
        if fits >= (1 - NEAR) * most:
            break
        # On the line from the last one to the least; where that leads out of the interval, or now and then, halved.
        rate = HIGHEST - (HIGHEST - rate) * (aim - least) / max(found - least, 1)
        if not low < rate < high or turn % 3 == 2:
            rate = (low + high) / 2
        found = size(rate)
        if found <= most:
            high, fits = rate, found
        else:
            low = rate
    return high


def _densities(
    weights: Sequence[Weight],
    settings: PruningSettings,
    curves: Mapping[str, Curve] | None,
    costs: Mapping[str, float] | None,
) -> dict[str, float]:
    """What is left of each weight that a job prunes."""
    kept = {}
    for pool in allocate(weights, settings, curves, costs):
        if len(pool.weights) == 1 and pool.rate is not None:
            kept[pool.weights[0].name] = 1 - pool.rate
        else:
            masks = make_masks([pool])
            kept |= {name: np.count_nonzero(mask) / mask.size for name, mask in masks.items()}
    return kept

"""The rate at which the pruned model meets a budget of multiply-adds or of bytes."""

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

# Bisection steps: the rate is exact to 1 / 2^14, less than a ten-thousandth.
HALVINGS = 14
HIGHEST = 0.9999
# A size this far below the budget is accepted.
NEAR = 0.01


@dataclass(frozen=True)
class Budget:
    """A budget: `asked`, the `fixed` cost that pruning does not change, and the `cost` of a weight at a density."""

    flag: str
    asked: float
    fixed: float
    cost: Callable[[Weight, float], float]


def budget_of_multiply_adds(
    weights: Sequence[Weight], share: float, costs: Mapping[str, int], total: int
) -> Budget:
    """A fraction of a model's multiply-adds, not counting those with zero weights.

    `costs`: multiply-adds of each dense weight, by name; `total`: of the whole model.
    """
    fixed = total - sum(costs[weight.name] for weight in weights)
    return Budget(
        f"--flops {share:g}", share * total, fixed, lambda weight, density: density * costs[weight.name]
    )


Settings = TypeVar("Settings", bound=PruningSettings)


def within_budget(
    weights: Sequence[Weight],
    settings: Settings,
    budget: Budget,
    curves: Mapping[str, Curve] | None,
    costs: Mapping[str, float] | None,
) -> Settings:
    """The settings with the lowest rate within a budget.

    `curves` and `costs` as in `allocate`.

    Raises:
        SettingError: no rate is within the budget.
    """
    present = {weight.name: weight.nonzero() / max(weight.size, 1) for weight in weights}

    def at(rate: float) -> Settings:
        return replace(settings, rate=rate, flops=None, bytes=None)

    def cost(rate: float) -> float:
        kept = present | _densities(weights, at(rate), curves, costs)
        return budget.fixed + sum(
            budget.cost(weight, min(kept[weight.name], present[weight.name])) for weight in weights
        )

    if cost(HIGHEST) > budget.asked:
        raise SettingError(
            f"{budget.flag} cannot be reached: {cost(HIGHEST):,.0f} multiply-adds remain even with almost no weights, "
            f"{budget.fixed:,.0f} of them in layers without prunable weights; give a larger --flops, or exclude fewer "
            "layers"
        )
    low, high = 0.0, HIGHEST
    if cost(low) <= budget.asked:
        return at(low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= budget.asked else (middle, high)
    return at(high)


def lowest_rate(size: Callable[[float], float], most: float, dense: float, least: float) -> float:
    """The lowest rate at which `size(rate)` is at most `most`; a size up to `NEAR` below it is accepted.

    `size` decreases with the rate; `dense` and `least` are the sizes at the rates 0 and `HIGHEST`.
    """
    if dense <= most:
        return 0.0
    aim = (1 - NEAR / 2) * most
    low, high, fits = 0.0, HIGHEST, least
    rate, found = low, dense
    for iteration in range(HALVINGS):
        if fits >= (1 - NEAR) * most:
            break
        # Linear interpolation between the last size and the least; outside of the interval, and every third time,
        # bisection.
        rate = HIGHEST - (HIGHEST - rate) * (aim - least) / max(found - least, 1)
        if not low < rate < high or iteration % 3 == 2:
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
    """The density of each weight that a job prunes, by name."""
    kept = {}
    for pool in allocate(weights, settings, curves, costs):
        if len(pool.weights) == 1 and pool.rate is not None:
            kept[pool.weights[0].name] = 1 - pool.rate
        else:
            masks = make_masks([pool])
            kept |= {name: np.count_nonzero(mask) / mask.size for name, mask in masks.items()}
    return kept

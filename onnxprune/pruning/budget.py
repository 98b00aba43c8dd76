"""The rate at which what is left costs what was asked for: so many multiply-adds, or so many bytes of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.config import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.model.weights import Weight
from onnxprune.pruning.allocation import allocate
from onnxprune.pruning.masks import make_masks
from onnxprune.pruning.rates import Curve

# Halvings of the interval that the rate is in: to a ten-thousandth.
HALVINGS = 14
HIGHEST = 0.9999
# Of an output file, about: the functions that decode its weights and its annotations; names and the like of a weight.
FUNCTION_BYTES = 6_000
WEIGHT_BYTES = 300
VALUE_BYTES = {"fp16": 2, "int8": 1}
# Bytes of a kept element's position in the ops format, and the longest way from one element to the next that it can
# say; the second where values are rounded.
POSITION, HALF_POSITION = (1.0, 255), (0.5, 15)
# Of an element's position in the coo format; of the scale of an output of an int8 weight.
COO_BYTES = 8
SCALE_BYTES = 4


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


def of_bytes(weights: Sequence[Weight], config: PruneConfig, file_bytes: int) -> Budget:
    """The size of the output file, from that of the input file, which holds the weights dense."""
    assert isinstance(config.bytes, int)

    def cost(weight: Weight, density: float) -> float:
        own, dense = weight.tensor.dtype.itemsize, weight.tensor.nbytes
        elements = weight.size * density
        if config.format == "coo":
            return min(dense, elements * (own + COO_BYTES)) + WEIGHT_BYTES
        # A weight is rounded only where it is sparse, and sparse where that is smaller before it is rounded.
        if _sparse(elements, density, own, *POSITION) + WEIGHT_BYTES >= dense:
            return dense + WEIGHT_BYTES
        itemsize = VALUE_BYTES.get(config.values, own)
        ways = (POSITION,) if itemsize == own else (POSITION, HALF_POSITION)
        scales = SCALE_BYTES * weight.shape[weight.out_axis] if config.values == "int8" else 0
        return min(_sparse(elements, density, itemsize, *way) for way in ways) + scales + WEIGHT_BYTES

    fixed = file_bytes - sum(weight.tensor.nbytes for weight in weights) + FUNCTION_BYTES
    return Budget(f"--bytes {config.bytes}", config.bytes, fixed, cost)


def _sparse(elements: float, density: float, itemsize: float, position: float, longest: int) -> float:
    """Bytes of so many elements strewn at a density, with zeros on ways that are too long for one position."""
    too_long = (1 - density) ** longest
    if too_long == 1:
        return 0.0
    return elements / (1 - too_long) * (itemsize + position)


def settled(
    weights: Sequence[Weight],
    config: PruneConfig,
    budget: Budget,
    curves: Mapping[str, Curve] | None,
    costs: Mapping[str, float] | None,
) -> PruneConfig:
    """The settings with the lowest rate, shared out as they say, that stays within a budget.

    `curves` and `costs` as in `allocate`.

    Raises:
        SettingError: no rate stays within it.
    """
    present = {weight.name: weight.nonzero() / max(weight.size, 1) for weight in weights}

    def at(rate: float) -> PruneConfig:
        return replace(config, rate=rate, flops=None, bytes=None)

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


def _densities(
    weights: Sequence[Weight],
    config: PruneConfig,
    curves: Mapping[str, Curve] | None,
    costs: Mapping[str, float] | None,
) -> dict[str, float]:
    """What is left of each weight that a job prunes."""
    kept = {}
    for pool in allocate(weights, config, curves, costs):
        if len(pool.weights) == 1 and pool.rate is not None:
            kept[pool.weights[0].name] = 1 - pool.rate
        else:
            masks = make_masks([pool])
            kept |= {name: np.count_nonzero(mask) / mask.size for name, mask in masks.items()}
    return kept

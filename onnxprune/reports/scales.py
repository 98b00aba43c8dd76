"""Scales of the axes of charts, with round ticks: linear, whole numbers, logarithmic, square root."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

STEPS = (1, 2, 2.5, 5, 10)
WHOLE_STEPS = (1, 2, 5, 10)
# Fewer ticks than this say too little of a logarithmic axis, more are crowded.
FEWEST, MOST = 3, 8


class Scale(NamedTuple):
    """Where values are on an axis, and round ticks for values from `low` to `high`, of which some may lie outside."""

    position: Callable[[float], float]
    ticks: Callable[[float, float], list[float]]


def ticks_between(low: float, high: float, count: int = 5, steps: Sequence[float] = STEPS) -> list[float]:
    """Round numbers, about `count`, the first at or below `low` and the last at or above `high`."""
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in steps if factor * power >= span / count)
    if steps is WHOLE_STEPS:
        step = max(step, 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... within the range; in a wide one powers of ten, in a narrow one evenly spaced round numbers."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = within([factor * 10.0**decade for decade in decades for factor in (1, 2, 5)], low, high)
    if len(ticks) < FEWEST:
        return within(ticks_between(low, high), low, high)
    if len(ticks) > MOST:
        powers = within([10.0**decade for decade in decades], low, high)
        return powers[:: -(-len(powers) // MOST)]
    return ticks


def root_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """0 and those of 1, 2, 5, 10, ... up to `high` that are nearest to places at even distances of square roots."""
    decades = range(math.floor(math.log10(max(high, 1))) + 1)
    rounds = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    shown = [tick for tick in rounds if tick <= high] or rounds[:1]
    places = [high * (index / count) ** 2 for index in range(1, count + 1)]
    return sorted(
        {0.0, *(min(shown, key=lambda tick: abs(math.sqrt(tick) - math.sqrt(place))) for place in places)}
    )


def within(ticks: Sequence[float], low: float, high: float) -> list[float]:
    """The ticks from `low` to `high`."""
    slack = (high - low) * 1e-9
    return [tick for tick in ticks if low - slack <= tick <= high + slack]


LINEAR = Scale(float, ticks_between)
WHOLE = Scale(float, partial(ticks_between, steps=WHOLE_STEPS))
LOGARITHMIC = Scale(math.log10, log_ticks)
ROOT = Scale(math.sqrt, root_ticks)

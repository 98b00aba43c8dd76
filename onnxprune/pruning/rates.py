"""A rate for each layer: by its shape (ERK), by its standard deviation, or by its sensitivity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.model.weights import Weight
from onnxprune.pruning.patterns import keep_largest

# Pieces that a curve is divided into between two of its points.
PIECES = 8

Curve = Sequence[tuple[float, float]]
"""(rate, loss) of one layer pruned alone, rates ascending."""


def erk_rates(weights: Sequence[Weight], rate: float) -> dict[str, float]:
    """Densities in proportion to (sum of dims) / (product of dims), at most 1 (Evci et al. 2020, ERK)."""
    kept = (1 - rate) * sum(weight.size for weight in weights)
    dense: set[str] = set()
    while True:
        others = [weight for weight in weights if weight.name not in dense]
        budget = kept - sum(weight.size for weight in weights if weight.name in dense)
        share = budget / max(sum(sum(weight.shape) for weight in others), 1)
        full = {weight.name for weight in others if share * sum(weight.shape) >= weight.size}
        if not full:
            break
        dense |= full
    return {
        weight.name: 0.0 if weight.name in dense else 1 - share * sum(weight.shape) / weight.size
        for weight in weights
    }


def std_rates(weights: Sequence[Weight], rate: float) -> dict[str, float]:
    """Thresholds in proportion to each layer's standard deviation, with the one factor that reaches the rate."""
    numbers = [weight.numbers() for weight in weights]
    scores = [np.abs(array) / (array.std(dtype=np.float64) or 1.0) for array in numbers]
    masks = keep_largest(scores, rate)
    return {
        weight.name: 1 - np.count_nonzero(mask) / mask.size
        for weight, mask in zip(weights, masks, strict=True)
    }


def cheapest_rates(curves: Mapping[str, Curve], costs: Mapping[str, float], rate: float) -> dict[str, float]:
    """The rates with the least total loss that remove the fraction `rate` of all costs.

    `costs`: of each dense layer, in weights or multiply-adds. The loss of a layer is taken to follow the lower convex
    hull of `between` its points. Pieces of the hulls are removed in the order of their slopes (loss per cost), which is
    optimal for convex losses that add up.
    """
    pieces = []
    for name, curve in curves.items():
        hull = _lower_hull(between([(0.0, 0.0), *curve]))
        for (start, low), (end, high) in itertools.pairwise(hull):
            # What costs nothing, such as an embedding's multiply-adds, is not worth any loss.
            slope = (high - low) / ((end - start) * costs[name]) if costs[name] else math.inf
            pieces.append((slope, name, end - start))
    rates = dict.fromkeys(curves, 0.0)
    left = rate * sum(costs[name] for name in curves)
    # Slopes increase along a hull, so the pieces of one layer come in order.
    for _, name, width in sorted(pieces, key=lambda piece: piece[0]):
        taken = min(width, left / costs[name]) if costs[name] else width
        rates[name] += taken
        left -= taken * costs[name]
        if left <= 0:
            break
    return rates


def between(curve: Curve) -> list[tuple[float, float]]:
    """A curve with points between its own, where the loss grows by the same factor at each step.

    So losses do grow: about exponentially with the rate. From a loss of 0 the step is linear.
    """
    points = [curve[0]]
    for (start, low), (end, high) in itertools.pairwise(curve):
        for piece in range(1, PIECES + 1):
            share = piece / PIECES
            both = low > 0 and high > 0
            loss = low * (high / low) ** share if both else low + (high - low) * share
            points.append((start + (end - start) * share, loss))
    return points


def _lower_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lower convex hull of points with ascending x, first and last included."""
    hull: list[tuple[float, float]] = []
    for x, y in points:
        while len(hull) >= 2:
            (x1, y1), (x2, y2) = hull[-2:]
            if (y2 - y1) * (x - x1) < (y - y1) * (x2 - x1):
                break
            hull.pop()
        hull.append((x, y))
    return hull

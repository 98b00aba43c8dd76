"""Channel pruning: the importance of each group of coupled channels, and the choice of groups for a rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Group = Mapping[tuple[str, int], np.ndarray]
"""Coupled channels: the positions of the group, by name and axis of each weight."""


TIE_BREAK = 1e-9  # smaller than one group as a fraction of any layer
NEAR = 0.01  # as a fraction of all elements: a rate as close as this is accepted


@dataclass(frozen=True)
class Choice:
    """`chosen`: indices of the groups to remove, ascending; `kept` and `total`: numbers of elements of the weights."""

    chosen: np.ndarray
    kept: int
    total: int

    @property
    def rate(self) -> float:
        """Fraction of the elements removed; lower than the rate asked for if the groups cannot reach it."""
        return 1 - self.kept / self.total if self.total else 0.0


def choose_channels(
    groups: Sequence[Group],
    weights: Mapping[str, np.ndarray],
    rate: float,
    *,
    allocation: str = "uniform",
    norm: str = "l2",
    round_to: int = 1,
    min_channels: int = 1,
    exclude: Collection[str] = (),
    scores: Mapping[str, np.ndarray] | None = None,
) -> Choice:
    """The least important groups that together hold the fraction `rate` of all elements of the weights.

    A layer is all groups with the same axes of the same weights. Allocation "uniform" removes the same fraction of the
    groups of each layer, "global" the least important of all, after dividing importances by their mean in the layer. A
    pruned layer keeps a multiple of `round_to` channels, and at least `min_channels`; a layer with fewer loses none.
    Weights in `exclude` are not pruned and do not count towards the rate. `scores` replace the values of the weights,
    by name and in their shapes: weight * gradient gives first-order Taylor importance (Molchanov et al. 2019).
    """
    excluded = set(exclude)
    usable = [index for index, group in enumerate(groups) if not any(name in excluded for name, _ in group)]
    sizes = {name: array.size for name, array in weights.items() if name not in excluded}
    total = sum(sizes.values())
    importance = group_importance(groups, weights if scores is None else scores, norm)
    layers = [_Layer(groups, members, importance) for members in _by_layer(groups, usable)]
    shapes = {name: weights[name].shape for name in sizes}
    ranks = _ranks(layers, allocation)
    thresholds = np.unique(np.concatenate([*ranks, np.zeros(1)]))
    caps = [len(layer.members) for layer in layers]

    def counts(index: int) -> list[int]:
        return [
            layer.rounded(
                min(cap, int(np.searchsorted(of_layer, thresholds[index], side="right"))),
                round_to,
                min_channels,
            )
            for layer, of_layer, cap in zip(layers, ranks, caps, strict=True)
        ]

    def choice(of_each: list[int]) -> Choice:
        parts = [layer.members[:count] for layer, count in zip(layers, of_each, strict=True)]
        chosen = np.sort(np.concatenate([*parts, np.zeros(0, np.int64)]))
        return Choice(chosen, _kept(groups, chosen, shapes), total)

    target = total * (1 - rate)
    best = choice([0] * len(layers))
    while True:
        low, high = 0, len(thresholds) - 1
        while low < high:
            middle = (low + high) // 2
            reached = choice(counts(middle)).kept <= target
            low, high = (low, middle) if reached else (middle + 1, high)
        short, over = counts(max(low - 1, 0)), counts(low)
        best = min(best, choice(short), choice(over), key=lambda found: abs(found.kept - target))
        coarse = [index for index, count in enumerate(over) if count > short[index]]
        if not coarse or abs(best.kept - target) <= NEAR * total or choice(over).kept > target:
            return best
        # The layers whose next groups overshoot the rate are capped, and the search continues with the others.
        for index in coarse:
            caps[index] = short[index]


def group_importance(groups: Sequence[Group], values: Mapping[str, np.ndarray], norm: str) -> np.ndarray:
    """L1 (mean of |w|) or L2 (root mean of w^2) norm over all elements of each group, float64 (groups,)."""
    sums: dict[tuple[str, int], tuple[np.ndarray, int]] = {}
    result = np.zeros(len(groups))
    for index, group in enumerate(groups):
        total, count = 0.0, 0
        for (name, axis), positions in group.items():
            if (name, axis) not in sums:
                sums[name, axis] = _slice_sums(values[name], axis, norm)
            slices, elements = sums[name, axis]
            total += float(slices[positions].sum())
            count += elements * len(positions)
        result[index] = total / max(count, 1)
    return result if norm == "l1" else np.sqrt(result)


class _Layer:
    """Groups with the same axes of the same weights, the least important first."""

    def __init__(self, groups: Sequence[Group], members: np.ndarray, importance: np.ndarray):
        scores = importance[members]
        order = np.argsort(scores, kind="stable")
        self.members = members[order]
        self.scores = scores[order] / (scores.mean() or 1.0)
        self.width = min(len(positions) for positions in groups[int(members[0])].values())
        self.channels = self.width * len(members)

    def rounded(self, count: int, round_to: int, min_channels: int) -> int:
        """The largest number of groups to remove, at most `count`, that leaves an allowed number of channels.

        At least one group remains.
        """
        for number in range(min(count, len(self.members) - 1), 0, -1):
            kept = self.channels - number * self.width
            if kept >= min_channels and kept % round_to == 0:
                return number
        return 0


def _by_layer(groups: Sequence[Group], usable: Sequence[int]) -> list[np.ndarray]:
    layers: dict[frozenset, list[int]] = {}
    for index in usable:
        key = frozenset((at, len(positions)) for at, positions in groups[index].items())
        layers.setdefault(key, []).append(index)
    return [np.array(members) for members in layers.values()]


def _ranks(layers: Sequence[_Layer], allocation: str) -> list[np.ndarray]:
    """The order in which groups are removed: for each layer's groups, ascending, above 0, on one scale for all."""
    if allocation == "uniform":
        # At equal fractions, layers with more groups come first: heads and the width inside them share weights.
        order = np.argsort(np.argsort([-len(layer.members) for layer in layers], kind="stable"))
        return [
            np.arange(1, len(layer.members) + 1) / len(layer.members) + TIE_BREAK * place
            for layer, place in zip(layers, order, strict=True)
        ]
    scores = np.unique(np.concatenate([*(layer.scores for layer in layers), np.zeros(0)]))
    return [np.searchsorted(scores, layer.scores) + 1.0 for layer in layers]


def _kept(groups: Sequence[Group], chosen: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The number of elements that remain without the chosen groups."""
    removed: dict[tuple[str, int], list[np.ndarray]] = {}
    for index in chosen:
        for at, positions in groups[index].items():
            removed.setdefault(at, []).append(positions)
    kept = {name: list(shape) for name, shape in shapes.items()}
    for (name, axis), parts in removed.items():
        kept[name][axis] -= len(np.unique(np.concatenate(parts)))
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in kept.values())


def _slice_sums(values: np.ndarray, axis: int, norm: str) -> tuple[np.ndarray, int]:
    """The sum of |w| or w^2 at each position of the axis, and the number of elements at one position."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    array = values.astype(np.float32, copy=False)
    powers = np.abs(array) if norm == "l1" else np.square(array, dtype=np.float64)
    return powers.sum(axis=others, dtype=np.float64), values.size // max(values.shape[axis], 1)

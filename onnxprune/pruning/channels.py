"""Which whole channels go: the importance of each group of coupled channels, and the choice of groups to a rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Cuts = Mapping[tuple[str, int], np.ndarray]
"""The positions that go with one group, by name and axis of each weight that has any."""


TURN = 1e-9  # a share of a layer below that of any group
NEAR = 0.01  # of all elements: from there on, no group is left out to come closer to the rate


@dataclass(frozen=True)
class Choice:
    """`chosen`: indices of the groups to remove, ascending; elements of weights that are left, and that there were."""

    chosen: np.ndarray
    left: int
    before: int

    @property
    def rate(self) -> float:
        """Fraction of the elements that goes; below the rate asked for where the groups do not reach it."""
        return 1 - self.left / self.before if self.before else 0.0


def choose_channels(
    groups: Sequence[Cuts],
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
    """The groups of least importance that together hold the fraction `rate` of all elements of the weights.

    A layer is all groups that cut the same axes of the same weights. Allocation "uniform" takes the same share of the
    groups of each layer, "global" the least of all, importances being divided by their mean in the layer. What is kept
    of a layer is a multiple of `round_to` channels and `min_channels` or more; a layer that had fewer loses none.
    Weights in `exclude` are not pruned and do not count towards the rate. `scores` stand in the place of the weights'
    values, by name and of their shapes: weight * gradient gives first-order Taylor importance (Molchanov et al. 2019).
    """
    excluded = set(exclude)
    usable = [index for index, cuts in enumerate(groups) if not any(name in excluded for name, _ in cuts)]
    sizes = {name: array.size for name, array in weights.items() if name not in excluded}
    before = sum(sizes.values())
    importance = group_importance(groups, weights if scores is None else scores, norm)
    layers = [_Layer(groups, members, importance) for members in _by_layer(groups, usable)]
    shapes = {name: weights[name].shape for name in sizes}
    places = _places(layers, allocation)
    steps = np.unique(np.concatenate([*places, np.zeros(1)]))
    caps = [len(layer.members) for layer in layers]

    def counts(step: int) -> list[int]:
        return [
            layer.rounded(
                min(cap, int(np.searchsorted(place, steps[step], side="right"))), round_to, min_channels
            )
            for layer, place, cap in zip(layers, places, caps, strict=True)
        ]

    def choice(of_each: list[int]) -> Choice:
        parts = [layer.members[:count] for layer, count in zip(layers, of_each, strict=True)]
        chosen = np.sort(np.concatenate([*parts, np.zeros(0, np.int64)]))
        return Choice(chosen, _left(groups, chosen, shapes), before)

    target = before * (1 - rate)
    best = choice([0] * len(layers))
    while True:
        low, high = 0, len(steps) - 1
        while low < high:
            middle = (low + high) // 2
            reached = choice(counts(middle)).left <= target
            low, high = (low, middle) if reached else (middle + 1, high)
        short, over = counts(max(low - 1, 0)), counts(low)
        best = min(best, choice(short), choice(over), key=lambda found: abs(found.left - target))
        coarse = [index for index, count in enumerate(over) if count > short[index]]
        if not coarse or abs(best.left - target) <= NEAR * before or choice(over).left > target:
            return best
        # What goes too far stays where it was before, and the others go on.
        for index in coarse:
            caps[index] = short[index]


def group_importance(groups: Sequence[Cuts], values: Mapping[str, np.ndarray], norm: str) -> np.ndarray:
    """L1 (mean of |w|) or L2 (root of the mean of w^2) norm over all elements that a group cuts, float64 (groups,)."""
    sums: dict[tuple[str, int], tuple[np.ndarray, int]] = {}
    result = np.zeros(len(groups))
    for index, cuts in enumerate(groups):
        total, count = 0.0, 0
        for (name, axis), positions in cuts.items():
            if (name, axis) not in sums:
                sums[name, axis] = _slice_sums(values[name], axis, norm)
            slices, elements = sums[name, axis]
            total += float(slices[positions].sum())
            count += elements * len(positions)
        result[index] = total / max(count, 1)
    return result if norm == "l1" else np.sqrt(result)


class _Layer:
    """Groups that cut the same axes, the least important first."""

    def __init__(self, groups: Sequence[Cuts], members: np.ndarray, importance: np.ndarray):
        scores = importance[members]
        order = np.argsort(scores, kind="stable")
        self.members = members[order]
        self.scores = scores[order] / (scores.mean() or 1.0)
        self.width = min(len(positions) for positions in groups[int(members[0])].values())
        self.channels = self.width * len(members)

    def rounded(self, count: int, round_to: int, min_channels: int) -> int:
        """At most `count`, and so that a multiple of `round_to`, `min_channels` and at least one group are left."""
        for number in range(min(count, len(self.members) - 1), 0, -1):
            left = self.channels - number * self.width
            if left >= min_channels and left % round_to == 0:
                return number
        return 0


def _by_layer(groups: Sequence[Cuts], usable: Sequence[int]) -> list[np.ndarray]:
    layers: dict[frozenset, list[int]] = {}
    for index in usable:
        key = frozenset((at, len(positions)) for at, positions in groups[index].items())
        layers.setdefault(key, []).append(index)
    return [np.array(members) for members in layers.values()]


def _places(layers: Sequence[_Layer], allocation: str) -> list[np.ndarray]:
    """For each layer's groups, least first, when they go: on one scale for all layers, ascending, above 0."""
    if allocation == "uniform":
        # Layers that come to the same share take turns, the finest first: some cut the same weights in several ways.
        turns = np.argsort(np.argsort([-len(layer.members) for layer in layers], kind="stable"))
        return [
            np.arange(1, len(layer.members) + 1) / len(layer.members) + TURN * turn
            for layer, turn in zip(layers, turns, strict=True)
        ]
    scores = np.unique(np.concatenate([*(layer.scores for layer in layers), np.zeros(0)]))
    return [np.searchsorted(scores, layer.scores) + 1.0 for layer in layers]


def _left(groups: Sequence[Cuts], chosen: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Elements that stay when the chosen groups' positions go."""
    going: dict[tuple[str, int], list[np.ndarray]] = {}
    for index in chosen:
        for at, positions in groups[index].items():
            going.setdefault(at, []).append(positions)
    kept = {name: list(shape) for name, shape in shapes.items()}
    for (name, axis), parts in going.items():
        kept[name][axis] -= len(np.unique(np.concatenate(parts)))
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in kept.values())


def _slice_sums(values: np.ndarray, axis: int, norm: str) -> tuple[np.ndarray, int]:
    """For each position of the axis, the sum of |w| or w^2, and the number of elements in it."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    array = values.astype(np.float32, copy=False)
    powers = np.abs(array) if norm == "l1" else np.square(array, dtype=np.float64)
    return powers.sum(axis=others, dtype=np.float64), values.size // max(values.shape[axis], 1)

"""Channel pruning: the importance of each group of coupled channels, and the choice of groups for a rate."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.pruning.channel_allocation import Curve, Remaining, cheapest
from onnxprune.pruning.channel_costs import Budget, Cost, Group, Kept, Shapes

TIE_BREAK = 1e-9  # smaller than one group as a fraction of any layer
ROUNDING = 1e-9  # of a number of groups
FREE = 1e-3  # of the cost of a model
NEAR = 0.01  # as a fraction of all elements: a rate as close as this is accepted


@dataclass(frozen=True)
class Choice:
    """`chosen`: indices of the groups to remove, ascending; `kept` and `total`: of the elements that can be removed.

    `stuck`: the number of elements of each weight, by name, that no group can remove; only of weights that have some.
    `full`: the number of layers that have lost as much as `max_rate` allows.
    `least`: what no group can remove, beside `total`. With a budget, these are costs.
    """

    chosen: np.ndarray
    kept: float
    total: float
    stuck: Mapping[str, int]
    full: int
    least: float = 0.0

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
    max_rate: float = 1.0,
    own_rates: Mapping[tuple[str, int], float] | None = None,
    exclude: Collection[str] = (),
    scores: Mapping[str, np.ndarray] | None = None,
    importance: np.ndarray | None = None,
    curves: Sequence[Curve] = (),
    budget: Budget | None = None,
    last: Collection[tuple[str, int]] = (),
    dead: Sequence[bool] | None = None,
) -> Choice:
    """The least important groups that together hold the fraction `rate` of all elements that groups can remove.

    A layer is all groups with the same axes of the same weights. Allocation "uniform" removes the same fraction of the
    groups of each layer, "global" the least important of all, after dividing importances by their mean in the layer,
    "sensitivity" those that move the outputs least for what they save, by the `curves` of the layers (of `layers_of`).
    A pruned layer keeps a multiple of `round_to` channels, and at least `min_channels`; a layer with fewer loses none.
    No layer loses more than the fraction `max_rate` of its channels, whatever that does to the rate.
    `own_rates`: the fraction of the channels that the layers on an axis of a weight lose; they and their elements do
    not count towards the rate. Weights in `exclude` are not pruned and do not count either.
    `scores` replace the values of the weights, by name and in their shapes: weight * gradient gives first-order Taylor
    importance (Molchanov et al. 2019). `importance` of each group replaces norms. `budget`: instead of the rate.
    `last`: layers on these axes lose channels once all others have lost as many as they may; not with "sensitivity".
    `dead`: by group, those that leave the model anyway; they are the first of a layer to go.
    """
    excluded = set(exclude)
    shapes = {name: array.shape for name, array in weights.items() if name not in excluded}
    if importance is None:
        importance = group_importance(groups, weights if scores is None else scores, norm)
    usable = _usable(groups, excluded)
    overlaps = _overlaps(groups, usable)
    gone = np.zeros(len(groups), bool) if dead is None else np.array(dead, bool)
    layers = [_Layer(groups, members, importance, gone, overlaps) for members in layers_of(groups, excluded)]
    settled = {
        index: layer.rounded(layer.share(own), round_to, min_channels)
        for index, layer in enumerate(layers)
        if (own := layer.own_rate(own_rates or {})) is not None
    }
    most = [layer.share(max_rate) for layer in layers]
    # Without a budget, weights are what remains.
    paid = Budget(0.0, [Cost.linear(name) for name in shapes], shapes, groups) if budget is None else budget

    kept = Kept([layer.members for layer in layers], paid)

    start = kept([settled.get(number, 0) for number in range(len(layers))])
    least = kept([settled.get(number, len(layer.members)) for number, layer in enumerate(layers)])
    target = start - (start - least) * rate if budget is None else budget.most
    stuck = {
        name: math.prod(shape) for name, shape in _left(groups, np.array(usable, np.int64), shapes).items()
    }

    def choice(of_each: Sequence[int]) -> Choice:
        full = sum(
            number not in settled and count == most[number] < len(layers[number].members) - 1
            for number, count in enumerate(of_each)
        )
        return Choice(
            _chosen(layers, of_each),
            kept(of_each) - least,
            start - least,
            {name: count for name, count in stuck.items() if count},
            full,
            least,
        )

    def allowed(number: int, count: int) -> int:
        if number in settled:
            return settled[number]
        return layers[number].rounded(count, round_to, min_channels)

    def distance(found: Choice) -> tuple[bool, float]:
        """How far from the target; more than a budget is farther than anything less."""
        over = found.kept + least - target
        return budget is not None and over > 0, abs(over)

    if allocation == "sensitivity":
        numbers = [
            sorted({allowed(number, count) for count in range(most[number] + 1)})
            for number in range(len(layers))
        ]
        remaining = Remaining.of(paid.shapes, paid.costs)
        remaining.remove([paid.groups[index] for index in _chosen(layers, [counts[0] for counts in numbers])])
        of_each = cheapest(layers, paid.groups, remaining, curves, numbers, target, kept)
        found = [choice(of_each)]
        for number, options in enumerate(numbers if budget is None else ()):
            # A rate may be missed on both sides: a few channels of a small layer can be much of it.
            fewer = options[max(options.index(of_each[number]) - 1, 0)]
            found.append(choice([*of_each[:number], fewer, *of_each[number + 1 :]]))
        return min(found, key=distance)

    ranks = _ranks(layers, allocation)
    highest = max((float(rank.max()) for rank in ranks), default=0.0)
    ranks = [
        rank if set(last).isdisjoint(layer.axes) else rank + highest
        for layer, rank in zip(layers, ranks, strict=True)
    ]
    thresholds = np.unique(np.concatenate([*ranks, np.zeros(1)]))
    caps = list(most)

    def counts(index: int) -> list[int]:
        under = (int(np.searchsorted(rank, thresholds[index], side="right")) for rank in ranks)
        return [allowed(number, min(caps[number], count)) for number, count in enumerate(under)]

    def with_free_ones(of_each: list[int]) -> list[int]:
        """With channels back that save next to nothing, as where kernels compute several at once."""
        before = kept(of_each)
        for number in range(len(of_each)):
            while number not in settled and of_each[number]:
                fewer = allowed(number, of_each[number] - 1)
                back = [*of_each[:number], fewer, *of_each[number + 1 :]]
                if fewer >= of_each[number] or (after := kept(back)) > min(target, before + FREE * start):
                    break
                of_each, before = back, after
        return of_each

    best = [settled.get(number, 0) for number in range(len(layers))]
    while True:
        low, high = 0, len(thresholds) - 1
        while low < high:
            middle = (low + high) // 2
            reached = kept(counts(middle)) <= target
            low, high = (low, middle) if reached else (middle + 1, high)
        short, over = counts(max(low - 1, 0)), counts(low)
        best = min(best, short, over, key=lambda of_each: distance(choice(of_each)))
        coarse = [index for index, count in enumerate(over) if count > short[index]]
        near = distance(choice(best)) <= (False, NEAR * (start - least))
        if not coarse or near or kept(over) > target:
            return choice(best if budget is None else with_free_ones(best))
        # The layers whose next groups overshoot the rate are capped, and the search continues with the others.
        for index in coarse:
            caps[index] = short[index]


@dataclass(frozen=True)
class Widest:
    """The layer with the most channels: the axes of its weights, by name, and how many it has.

    `movable`: whether any layer may lose a channel by the limits asked for.
    """

    axes: Sequence[tuple[str, int]]
    channels: int
    movable: bool


def widest(
    groups: Sequence[Group],
    exclude: Collection[str] = (),
    *,
    round_to: int = 1,
    min_channels: int = 1,
    max_rate: float = 1.0,
) -> Widest:
    """The widest layer of some groups, with the limits of `choose_channels`."""
    overlaps = _overlaps(groups, _usable(groups, exclude))
    alike = np.ones(len(groups))
    none = np.zeros(len(groups), bool)
    layers = [_Layer(groups, members, alike, none, overlaps) for members in layers_of(groups, exclude)]
    movable = any(layer.rounded(layer.share(max_rate), round_to, min_channels) for layer in layers)
    first = max(layers, key=lambda layer: layer.channels)
    return Widest(first.axes, first.channels, movable)


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
    """Groups with the same axes of the same weights, the least important first, and before them the dead ones.

    `overlaps`: how many groups hold each position, by axis: heads and the width of each head share their weights.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        members: np.ndarray,
        importance: np.ndarray,
        dead: np.ndarray,
        overlaps: Mapping[tuple[str, int], np.ndarray],
    ):
        scores = np.where(dead[members], 0, importance[members])
        order = np.lexsort((scores, ~dead[members]))
        self._dead = int(dead[members].sum())
        self.members = members[order]
        self.scores = scores[order] / (scores.mean() or 1.0)
        self.width = min(len(positions) for positions in groups[int(members[0])].values())
        self.channels = self.width * len(members)
        self.axes = list(groups[int(members[0])])
        self._overlapping = max(
            (int(overlaps[at][where].max()) for at, where in groups[int(members[0])].items()), default=1
        )

    def share(self, rate: float) -> int:
        """How many groups may go so that with those of overlapping layers at most the fraction `rate` does."""
        alone = 1 - (1 - rate) ** (1 / self._overlapping)
        return min(int(alone * len(self.members) + ROUNDING), len(self.members) - 1)

    def own_rate(self, rates: Mapping[tuple[str, int], float]) -> float | None:
        """The rate of its own that one of its axes has, if any."""
        return next((rates[at] for at in self.axes if at in rates), None)

    def rounded(self, count: int, round_to: int, min_channels: int) -> int:
        """The largest number of groups to remove, at most `count`, that leaves an allowed number of channels.

        At least one group remains. Where some of them are dead, more than `count` may have to go for that.
        """
        most = len(self.members) - 1

        def allows(number: int) -> bool:
            kept = self.channels - number * self.width
            return kept >= min_channels and kept % round_to == 0

        fewer = (number for number in range(min(count, most), max(self._dead, 1) - 1, -1) if allows(number))
        more = (number for number in range(self._dead, most + 1) if self._dead and count and allows(number))
        return next(fewer, next(more, 0))


def _usable(groups: Sequence[Group], excluded: Collection[str]) -> list[int]:
    """The groups without positions in excluded weights."""
    return [index for index, group in enumerate(groups) if not any(name in excluded for name, _ in group)]


def layers_of(groups: Sequence[Group], exclude: Collection[str] = ()) -> list[np.ndarray]:
    """The indices of the groups of each layer, without those that touch weights in `exclude`."""
    layers: dict[frozenset, list[int]] = {}
    for index in _usable(groups, exclude):
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


def _chosen(layers: Sequence[_Layer], of_each: Sequence[int]) -> np.ndarray:
    """The first groups of each layer, so many of each, ascending."""
    parts = [layer.members[:count] for layer, count in zip(layers, of_each, strict=True)]
    return np.sort(np.concatenate([*parts, np.zeros(0, np.int64)]))


def _overlaps(groups: Sequence[Group], usable: Sequence[int]) -> dict[tuple[str, int], np.ndarray]:
    """How many groups hold each position, by name and axis."""
    held: dict[tuple[str, int], list[np.ndarray]] = {}
    for index in usable:
        for at, positions in groups[index].items():
            held.setdefault(at, []).append(positions)
    return {at: np.bincount(np.concatenate(parts)) for at, parts in held.items()}


def _left(groups: Sequence[Group], chosen: np.ndarray, shapes: Shapes) -> dict[str, list[int]]:
    """The shape of what remains of each weight without the chosen groups."""
    removed: dict[tuple[str, int], list[np.ndarray]] = {}
    for index in chosen:
        for at, positions in groups[index].items():
            removed.setdefault(at, []).append(positions)
    left = {name: list(shape) for name, shape in shapes.items()}
    for (name, axis), parts in removed.items():
        left[name][axis] -= len(np.unique(np.concatenate(parts)))
    return left


def _slice_sums(values: np.ndarray, axis: int, norm: str) -> tuple[np.ndarray, int]:
    """The sum of |w| or w^2 at each position of the axis, and the number of elements at one position."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    array = values.astype(np.float32, copy=False)
    powers = np.abs(array) if norm == "l1" else np.square(array, dtype=np.float64)
    return powers.sum(axis=others, dtype=np.float64), values.size // max(values.shape[axis], 1)

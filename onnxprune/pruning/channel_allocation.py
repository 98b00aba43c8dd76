"""How many channels each layer loses: always those next that move the outputs least for what their removal saves."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxprune.pruning.channel_costs import Cost, Group, Shapes

Curve = Sequence[tuple[int, float]]
"""(number of channels gone, deviation of the outputs) of a layer, ascending."""

# A layer loses at most this part of its channels in a step.
STEP = 1 / 64


class Members(Protocol):
    """A layer: indices of its groups, those that go first first."""

    members: np.ndarray


@dataclass
class Remaining:
    """What is left of weights while groups go; `costs`: those that depend on each weight, by name."""

    costs: Mapping[str, Sequence[Cost]]
    kept: dict[str, list[int]]
    gone: dict[tuple[str, int], np.ndarray]

    @classmethod
    def of(cls, shapes: Shapes, costs: Sequence[Cost]) -> Remaining:
        """All of weights of these shapes."""
        by_weight = {name: [cost for cost in costs if name in cost.weights] for name in shapes}
        return cls(by_weight, {name: list(shape) for name, shape in shapes.items()}, {})

    def cost(self) -> float:
        """The cost of all that is left."""
        return sum(cost.at(self.kept) for cost in self._costs_of(self.kept))

    def saving(self, groups: Sequence[Group]) -> float:
        """By how much the cost falls without these groups."""
        fewer = self._fewer(groups)
        after = {name: list(self.kept[name]) for name, _ in fewer}
        for (name, axis), positions in fewer.items():
            after[name][axis] -= len(positions)
        touched = self._costs_of(after)
        left = ChainMap(after, self.kept)
        return sum(cost.at(self.kept) for cost in touched) - sum(cost.at(left) for cost in touched)

    def remove(self, groups: Sequence[Group]) -> None:
        """Take groups away."""
        for (name, axis), positions in self._fewer(groups).items():
            self._mask(name, axis)[positions] = True
            self.kept[name][axis] -= len(positions)

    def _costs_of(self, names: Iterable[str]) -> list[Cost]:
        """The costs that depend on any of these weights, each once."""
        return list({id(cost): cost for name in names for cost in self.costs[name]}.values())

    def _fewer(self, groups: Sequence[Group]) -> dict[tuple[str, int], np.ndarray]:
        parts: dict[tuple[str, int], list[np.ndarray]] = {}
        for group in groups:
            for at, positions in group.items():
                parts.setdefault(at, []).append(positions)
        found = {}
        for (name, axis), some in parts.items():
            positions = np.unique(np.concatenate(some))
            found[name, axis] = positions[~self._mask(name, axis)[positions]]
        return found

    def _mask(self, name: str, axis: int) -> np.ndarray:
        if (name, axis) not in self.gone:
            self.gone[name, axis] = np.zeros(self.kept[name][axis], bool)
        return self.gone[name, axis]


def cheapest(
    layers: Sequence[Members],
    groups: Sequence[Group],
    remaining: Remaining,
    curves: Sequence[Curve],
    allowed: Sequence[Sequence[int]],
    target: float,
    kept: Callable[[Sequence[int]], float],
) -> list[int]:
    """The number of groups that each layer loses until what remains costs at most `target`.

    `allowed`: the numbers that each layer may lose, ascending from those that it has lost already in `remaining`.
    `kept`: the cost of what remains, by the numbers of all layers.
    """
    hulls = [_hull(curve) for curve in curves]
    at = [0] * len(layers)

    def removed(number: int, to: int) -> list[Group]:
        counts = allowed[number]
        return [groups[index] for index in layers[number].members[counts[at[number]] : counts[to]]]

    while remaining.cost() > target:
        best: tuple[float, int, int] | None = None
        for number, counts in enumerate(allowed):
            for to in _next(counts, at[number], len(layers[number].members)):
                saved = remaining.saving(removed(number, to))
                worse = hulls[number](counts[to]) - hulls[number](counts[at[number]])
                price = worse / saved if saved > 0 else np.inf
                if best is None or price < best[0]:
                    best = price, number, to
        if best is None:
            break
        _, number, to = best
        remaining.remove(removed(number, to))
        at[number] = to

    def cost(places: Sequence[int]) -> float:
        return kept([counts[place] for counts, place in zip(allowed, places, strict=True)])

    # The last step may have gone too far: what costs most comes back.
    for number in sorted(
        range(len(layers)), key=lambda number: -_last_price(hulls[number], allowed[number], at[number])
    ):
        while at[number] and cost([*at[:number], at[number] - 1, *at[number + 1 :]]) <= target:
            at[number] -= 1
    return [counts[place] for counts, place in zip(allowed, at, strict=True)]


def _last_price(hull: Callable[[int], float], counts: Sequence[int], at: int) -> float:
    """The deviation that the last channels of a layer made."""
    return hull(counts[at]) - hull(counts[at - 1]) if at else 0.0


def _next(counts: Sequence[int], at: int, members: int) -> Iterator[int]:
    """The index of the next number to remove, at most `STEP` further, or one place; then some further ones.

    The next one may save nothing, as where kernels compute several channels at once.
    """
    if at + 1 >= len(counts):
        return
    to = at + 1
    while to + 1 < len(counts) and counts[to + 1] - counts[at] <= STEP * members:
        to += 1
    step = to - at
    while to < len(counts):
        yield to
        to, step = to + step, 2 * step


def _hull(curve: Curve) -> Callable[[int], float]:
    """The lower convex hull of a curve from (0, 0): a layer goes on where it once was cheap."""
    points: list[tuple[float, float]] = []
    for point in [(0.0, 0.0), *curve]:
        while len(points) > 1 and _turns_down(points[-2], points[-1], point):
            points.pop()
        if not points or point[0] > points[-1][0]:
            points.append(point)
    counts, deviations = (np.array(part) for part in zip(*points, strict=True))
    return lambda count: float(np.interp(count, counts, deviations))


def _turns_down(first: tuple[float, float], second: tuple[float, float], third: tuple[float, float]) -> bool:
    return (second[1] - first[1]) * (third[0] - first[0]) >= (third[1] - first[1]) * (second[0] - first[0])

"""What the channels that are left of a model cost, in any unit: weights, multiply-adds, seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Shapes = Mapping[str, Sequence[int]]
"""What is left of each weight, or of the loops of a product, by name."""
Group = Mapping[tuple[str, int], np.ndarray]
"""Coupled channels: the positions of the group, by name and axis of each weight, or loop of each product."""


@dataclass(frozen=True)
class Cost:
    """A part of the cost of a model: `at` the shapes that are left, of which those of `weights` matter."""

    weights: tuple[str, ...]
    at: Callable[[Shapes], float]

    @classmethod
    def of_shape(cls, weight: str, cost: Callable[[Sequence[int]], float]) -> Cost:
        """A cost that depends on the shape that is left of one weight."""
        return cls((weight,), lambda shapes: cost(shapes[weight]))

    @classmethod
    def linear(cls, weight: str, each: float = 1.0) -> Cost:
        """So much for each element of a weight."""
        return cls.of_shape(weight, lambda shape: each * math.prod(shape))


@dataclass(frozen=True)
class Budget:
    """The channels that remain cost at most `most`; costs of what loses none are no part of it.

    `shapes`: of all that `costs` depend on, whole. `groups`: the positions of each group in it.
    """

    most: float
    costs: Sequence[Cost]
    shapes: Shapes
    groups: Sequence[Group]


class Kept:
    """What remains costs once each layer has lost so many of its groups, the first of its `members`.

    Called again, it counts only what the layers with other numbers than before hold.
    """

    def __init__(self, members: Sequence[np.ndarray], budget: Budget):
        self._layers = [_Held.by_axis(budget.groups, some) for some in members]
        self._of_each = [0] * len(members)
        self._gone = {
            at: np.zeros(budget.shapes[at[0]][at[1]], np.int64) for layer in self._layers for at in layer
        }
        self._left = {name: list(shape) for name, shape in budget.shapes.items()}
        self._costs = budget.costs
        self._of_weight: dict[str, list[int]] = {}
        for number, cost in enumerate(self._costs):
            for name in cost.weights:
                self._of_weight.setdefault(name, []).append(number)
        self._each = [cost.at(self._left) for cost in self._costs]

    def __call__(self, of_each: Sequence[int]) -> float:
        """The cost of what remains with these numbers."""
        changed = set()
        for layer, before, now in zip(self._layers, self._of_each, of_each, strict=True):
            for at, held in layer.items() if before != now else ():
                gone = self._gone[at]
                np.add.at(gone, held.between(min(before, now), max(before, now)), 1 if now > before else -1)
                changed.add(at)
        self._of_each = list(of_each)
        for name, axis in changed:
            gone = self._gone[name, axis]
            self._left[name][axis] = len(gone) - int(np.count_nonzero(gone))
        for number in {number for name, _ in changed for number in self._of_weight.get(name, ())}:
            self._each[number] = self._costs[number].at(self._left)
        return sum(self._each)


@dataclass(frozen=True)
class _Held:
    """The positions that the groups of a layer hold on one axis, one group after the other, and where each begins."""

    positions: np.ndarray
    begins: np.ndarray

    @classmethod
    def by_axis(cls, groups: Sequence[Group], members: np.ndarray) -> dict[tuple[str, int], _Held]:
        """On each axis that a group of the layer holds any positions of."""
        parts: dict[tuple[str, int], list[tuple[int, np.ndarray]]] = {}
        for place, index in enumerate(members):
            for at, positions in groups[index].items():
                parts.setdefault(at, []).append((place, positions))
        found = {}
        for at, some in parts.items():
            lengths = np.zeros(len(members) + 1, np.int64)
            for place, positions in some:
                lengths[place + 1] = len(positions)
            found[at] = cls(np.concatenate([positions for _, positions in some]), np.cumsum(lengths))
        return found

    def between(self, first: int, last: int) -> np.ndarray:
        """The positions of the groups from `first` up to `last`, exclusive."""
        return self.positions[self.begins[first] : self.begins[last]]

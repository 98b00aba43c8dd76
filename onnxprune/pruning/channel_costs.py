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

"""What the channels that are left cost, counted anew or from where the last count was."""

from __future__ import annotations

import math

import numpy as np

from onnxprune.pruning.channel_costs import Budget, Cost, Group, Kept


def test_what_is_kept_costs_the_same_from_any_numbers_before():
    rng = np.random.default_rng(0)
    shapes = {"a": (12, 24), "b": (24, 8)}
    # The second layer shares positions with the first, and not all of its groups hold something of each axis.
    groups: list[Group] = [
        {("a", 1): np.arange(2) + 2 * unit, ("b", 0): np.arange(2) + 2 * unit} for unit in range(12)
    ]
    groups += [{("a", 1): np.array([unit, unit + 12]), ("b", 1): np.array([unit % 8])} for unit in range(12)]
    groups += [
        {("a", 0): np.array([unit])} if unit % 2 else {("b", 1): np.array([unit])} for unit in range(8)
    ]
    members = [rng.permutation(12), 12 + rng.permutation(12), 24 + rng.permutation(8)]
    both = Cost(("a", "b"), lambda left: math.sqrt(math.prod(left["a"]) * left["b"][1]))
    costs = [Cost.linear("a"), Cost.linear("b", 0.5), both]
    kept = Kept(members, Budget(0.0, costs, shapes, groups))
    for _ in range(50):
        numbers = [int(rng.integers(len(some) + 1)) for some in members]
        left = {name: [set(range(length)) for length in shape] for name, shape in shapes.items()}
        for some, number in zip(members, numbers, strict=True):
            for index in some[:number]:
                for (name, axis), positions in groups[index].items():
                    left[name][axis] -= set(positions.tolist())
        lengths = {name: [len(axis) for axis in axes] for name, axes in left.items()}
        assert kept(numbers) == sum(cost.at(lengths) for cost in costs)

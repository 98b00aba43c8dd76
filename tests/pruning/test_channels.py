"""Which channels go: the least important, to the rate, rounded as asked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from onnxprune.pruning.channel_costs import Budget, Cost
from onnxprune.pruning.channels import Choice, choose_channels, group_importance

Groups = list[dict[tuple[str, int], np.ndarray]]


def chain(*widths: int, seed: int = 0) -> tuple[Groups, dict[str, np.ndarray]]:
    """Dense layers w0, w1, ... (out, in), one behind the other; the groups of the widths in between."""
    rng = np.random.default_rng(seed)
    weights = {
        f"w{layer}": rng.standard_normal((out, inputs)).astype(np.float32)
        for layer, (inputs, out) in enumerate(pairwise(widths))
    }
    groups: Groups = [
        {(f"w{layer}", 0): np.array([unit]), (f"w{layer + 1}", 1): np.array([unit])}
        for layer, width in enumerate(widths[1:-1])
        for unit in range(width)
    ]
    return groups, weights


def lost(choice: Choice, widths: tuple[int, ...]) -> list[int]:
    """Channels removed of each width in between."""
    ends = np.cumsum((0, *widths[1:-1]))
    return np.histogram(choice.chosen, ends)[0].tolist()


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_the_rate_is_the_fraction_of_weights_removed(rate: float, allocation: str) -> None:
    groups, weights = chain(20, 100, 80, 10)
    choice = choose_channels(groups, weights, rate, allocation=allocation)
    assert choice.total == 2000 + 8000 + 800
    assert choice.rate == pytest.approx(rate, abs=0.02)
    left = [100, 80]
    for layer, gone in enumerate(lost(choice, (20, 100, 80, 10))):
        left[layer] -= gone
    assert choice.kept == 20 * left[0] + left[0] * left[1] + left[1] * 10


def test_the_least_important_channels_of_a_layer_are_removed() -> None:
    groups, weights = chain(4, 10, 3)
    weights["w0"][[2, 7]] *= 0.01
    weights["w1"][:, [2, 7]] *= 0.01
    assert choose_channels(groups, weights, 0.2).chosen.tolist() == [2, 7]


def test_a_layer_of_small_weights_does_not_lose_more_than_others_globally() -> None:
    groups, weights = chain(30, 40, 40, 30)
    small = weights | {"w0": weights["w0"] * 1e-3}
    even, scaled = (
        lost(choose_channels(groups, w, 0.5, allocation="global"), (30, 40, 40, 30)) for w in (weights, small)
    )
    assert min(even) > 5 and min(scaled) > 5


def test_importance_is_the_mean_size_of_all_elements_of_the_group() -> None:
    groups, weights = chain(2, 3, 1)
    array = np.abs(np.concatenate([weights["w0"][1], weights["w1"][:, 1]])).astype(np.float64)
    assert group_importance(groups, weights, "l1")[1] == pytest.approx(array.mean())
    assert group_importance(groups, weights, "l2")[1] == pytest.approx(np.sqrt(np.square(array).mean()))


def test_scores_replace_the_values_in_the_importance() -> None:
    groups, weights = chain(4, 6, 3)
    scores = {name: np.ones_like(array) for name, array in weights.items()}
    scores["w0"][4] = scores["w1"][:, 4] = 0
    assert choose_channels(groups, weights, 0.17, scores=scores).chosen.tolist() == [4]


@pytest.mark.parametrize(
    ("round_to", "least", "left"), [(8, 1, {8, 16}), (1, 15, {15}), (4, 6, {8}), (64, 1, {30})]
)
def test_round_to_and_min_channels_hold_in_every_layer(round_to: int, least: int, left: set[int]) -> None:
    groups, weights = chain(10, 30, 10)
    choice = choose_channels(
        groups, weights, 0.8 if least > 1 else 0.6, round_to=round_to, min_channels=least
    )
    assert 30 - len(choice.chosen) in left


def test_a_layer_keeps_one_channel_whatever_the_rate() -> None:
    groups, weights = chain(10, 30, 30, 10)
    choice = choose_channels(groups, weights, 0.9999)
    assert lost(choice, (10, 30, 30, 10)) == [29, 29]
    assert choice.rate < 0.9999


def test_excluded_weights_are_not_pruned_and_do_not_count_towards_the_rate() -> None:
    groups, weights = chain(10, 30, 30, 10)
    choice = choose_channels(groups, weights, 0.5, exclude=["w0"])
    assert lost(choice, (10, 30, 30, 10))[0] == 0
    assert choice.total == 900 + 300 and choice.rate == pytest.approx(0.5, abs=0.02)


def test_a_layer_that_cannot_be_pruned_does_not_count_and_no_other_layer_makes_up_for_it() -> None:
    groups, weights = chain(10, 40, 40, 10)
    weights["frozen"] = np.ones((500, 10), np.float32)
    alone, beside = (
        choose_channels(groups, given, 0.5)
        for given in ({k: v for k, v in weights.items() if k != "frozen"}, weights)
    )
    assert beside.chosen.tolist() == alone.chosen.tolist()
    assert (beside.total, beside.stuck, alone.stuck) == (2400, {"frozen": 5000}, {})
    assert beside.rate == pytest.approx(0.5, abs=0.02)


def test_the_part_of_a_weight_that_no_group_holds_does_not_count() -> None:
    # Half of the columns of w1 come from elsewhere.
    groups, weights = chain(10, 40, 10)
    weights["w1"] = np.ones((10, 80), np.float32)
    choice = choose_channels(groups, weights, 0.5)
    assert (choice.total, choice.stuck) == (400 + 400, {"w1": 400})
    assert len(choice.chosen) == 20


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_no_layer_loses_more_than_the_largest_rate(allocation: str) -> None:
    widths = (10, 64, 16, 1, 10)
    groups, weights = chain(*widths)
    weights["w0"] *= np.logspace(-3, 0, 64)[:, None].astype(np.float32)
    choice = choose_channels(groups, weights, 0.99, allocation=allocation, max_rate=0.875)
    assert lost(choice, widths) == [56, 14, 0]
    assert choice.full == 2 and choice.rate < 0.985


def test_overlapping_layers_together_lose_at_most_the_largest_rate() -> None:
    weights = {"w": np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)}
    heads = [{("w", 0): np.arange(head * 8, head * 8 + 8)} for head in range(8)]
    widths = [{("w", 0): np.arange(width, 64, 8)} for width in range(8)]
    choice = choose_channels([*heads, *widths], weights, 0.99, max_rate=0.75)
    assert [sum(choice.chosen < 8), sum(choice.chosen >= 8)] == [4, 4]
    assert choice.rate == 0.75


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_layer_with_its_own_rate_may_lose_more_and_does_not_count(rate: float) -> None:
    widths = (10, 40, 40, 10)
    groups, weights = chain(*widths)
    choice = choose_channels(groups, weights, rate, max_rate=0.875, own_rates={("w0", 0): 0.95})
    gone = lost(choice, widths)
    assert gone[0] == 38
    # Of w1 two columns are left, and of w2 all.
    assert choice.total == 2 * 40 + 10 * 40 and choice.kept == (40 - gone[1]) * (2 + 10)
    assert choice.rate == pytest.approx(rate, abs=0.02)


def test_rate_0_removes_nothing_and_neither_does_a_model_without_groups() -> None:
    groups, weights = chain(10, 30, 10)
    assert choose_channels(groups, weights, 0).chosen.size == 0
    assert choose_channels([], weights, 0.5).rate == 0


def test_a_weight_pruned_along_both_axes_is_counted_once() -> None:
    weights = {"w": np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)}
    heads = [{("w", 0): np.arange(head * 4, head * 4 + 4)} for head in range(3)]
    widths = [{("w", 0): np.arange(width, 12, 4)} for width in range(4)]
    choice = choose_channels([*heads, *widths], weights, 0.5)
    rows = np.unique(np.concatenate([[*heads, *widths][index]["w", 0] for index in choice.chosen]))
    assert choice.kept == 5 * (12 - len(rows))


def test_a_group_too_coarse_for_the_rate_is_kept_and_finer_ones_are_removed() -> None:
    groups, weights = chain(10, 40, 40, 10)
    halves: Groups = [{("w3", 0): np.arange(half * 50, half * 50 + 50)} for half in range(2)]
    weights["w3"] = np.ones((100, 50), np.float32)
    assert choose_channels([*groups, *halves], weights, 0.25).rate == pytest.approx(0.25, abs=0.02)


def test_a_small_rate_removes_the_few_groups_that_come_closest_to_it() -> None:
    groups, weights = chain(10, 400, 10)
    assert len(choose_channels(groups, weights, 0.005).chosen) == 2


def test_the_layers_lose_what_moves_the_outputs_least_for_what_it_saves() -> None:
    groups, weights = chain(20, 100, 80, 10)
    cheap = [[(50, 0.01), (87, 0.02)], [(40, 0.5), (70, 1.0)]]
    settings = {"allocation": "sensitivity", "max_rate": 0.875}
    choice = choose_channels(groups, weights, 0.3, curves=cheap, **settings)
    assert choice.rate == pytest.approx(0.3, abs=0.01)
    assert lost(choice, (20, 100, 80, 10))[1] == 0
    # With all that the first layer can lose gone, the other one follows.
    assert lost(choose_channels(groups, weights, 0.95, curves=cheap, **settings), (20, 100, 80, 10))[0] == 87


def shapes_of(weights: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in weights.items()}


@pytest.mark.parametrize("allocation", ["uniform", "global", "sensitivity"])
def test_a_budget_is_of_costs_and_is_kept(allocation: str) -> None:
    groups, weights = chain(20, 100, 80, 10)
    costs = [Cost.linear("w0", 50.0), Cost.linear("w1"), Cost.linear("w2")]
    curves = [[(50, 0.1), (100, 0.5)], [(40, 0.1), (80, 0.5)]]
    whole = 50 * 2000 + 8000 + 800
    budget = Budget(0.6 * whole, costs, shapes_of(weights), groups)
    choice = choose_channels(groups, weights, 0, allocation=allocation, curves=curves, budget=budget)
    assert 0.57 * whole < choice.kept + choice.least <= 0.6 * whole


def staircase(shape: Sequence[int]) -> float:
    """The cost of w0, where eight channels cost as much as one."""
    return -(-shape[0] // 8)


@pytest.mark.parametrize("allocation", ["uniform", "global", "sensitivity"])
def test_channels_that_save_nothing_stay(allocation: str) -> None:
    groups, weights = chain(16, 64, 64, 8)
    # The second layer, which costs nothing, loses nothing; of the first, whole steps go.
    curves = [[(32, 0.1), (60, 0.5)], [(32, 0.1), (60, 0.5)]]
    budget = Budget(5.5, [Cost.of_shape("w0", staircase)], shapes_of(weights), groups)
    choice = choose_channels(groups, weights, 0, allocation=allocation, curves=curves, budget=budget)
    assert lost(choice, (16, 64, 64, 8)) == [24, 0]
    assert choice.kept + choice.least == 5


def test_the_cost_of_two_weights_falls_with_either() -> None:
    groups, weights = chain(16, 40, 40, 8)
    both = Cost(("w0", "w1"), lambda shapes: shapes["w0"][0] * shapes["w1"][0])
    curves = [[(40, 1.0)], [(40, 0.01)]]
    budget = Budget(800, [both], shapes_of(weights), groups)
    choice = choose_channels(groups, weights, 0, allocation="sensitivity", curves=curves, budget=budget)
    assert lost(choice, (16, 40, 40, 8)) == [0, 20]


@pytest.mark.parametrize(("rate", "gone"), [(0.0, 0), (0.1, 8), (0.3, 16), (0.5, 32)])
def test_dead_channels_go_first_and_count_in_what_is_rounded(rate: float, gone: int) -> None:
    groups, weights = chain(16, 64, 8)
    # Of large weights, and removed by the surgery whatever is chosen.
    dead = np.isin(np.arange(64), [3, 30, 50, 60, 61])
    for index in np.flatnonzero(dead):
        weights["w0"][index] *= 100
    choice = choose_channels(groups, weights, rate, round_to=8, dead=dead)
    assert len(choice.chosen) == gone
    assert not gone or set(np.flatnonzero(dead)) <= set(choice.chosen.tolist())

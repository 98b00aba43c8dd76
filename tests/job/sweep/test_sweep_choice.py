"""Means and spreads over seeds, and the choice within a budget, with known values."""

import math

import pytest

from onnxprune.errors import ValidationError
from onnxprune.job.scored import Scored
from onnxprune.job.sweep.choice import Budget
from onnxprune.job.sweep.results import Combination
from onnxprune.job.sweep.runs import Run


def combination(name, drops, kept=100, size=1000, baseline=0.8, failed=0):
    runs = [
        Run(f"{name}-{seed}", 1.0, Scored(kept, 1000, size, "top-1", baseline - drop, baseline, drop, None))
        for seed, drop in enumerate(drops)
    ]
    runs += [Run(f"{name}-failed", 1.0, None, "why")] * failed
    return Combination({"name": name}, tuple(runs))


def test_the_mean_and_the_sample_standard_deviation_over_the_seeds():
    found = combination("a", [0.01, 0.02, 0.06]).to_dict()
    assert found["mean"]["drop"] == pytest.approx(0.03) and found["mean"]["rate"] == 0.9
    # Squares of -0.02, -0.01 and 0.03: 0.0014, over n - 1 = 2.
    assert found["deviation"]["drop"] == pytest.approx(math.sqrt(0.0007))
    assert found["mean"]["value"] == pytest.approx(0.77) and found["deviation"]["kept"] == 0
    assert combination("a", [0.01]).to_dict()["deviation"]["drop"] is None


def test_a_failed_run_is_counted_and_does_not_count_in_the_mean():
    found = combination("a", [0.01, 0.03], failed=1).to_dict()
    assert found["mean"]["drop"] == pytest.approx(0.02)
    assert (found["failed"], found["errors"]) == (1, ["why"])
    assert "mean" not in combination("a", [], failed=2).to_dict()


SMALL = combination("small", [0.01, 0.05], kept=50, size=600)
MIDDLE = combination("middle", [0.02, 0.01, 0.03], kept=70, size=900)
LARGE = combination("large", [0.001, 0.002], kept=200, size=3000)
ALL = [LARGE, SMALL, MIDDLE]


@pytest.mark.parametrize(
    ("budget", "combination", "run"),
    [
        # The mean of the small one is 0.03, although one of its seeds is within.
        (Budget(max_drop=0.03), SMALL, "small-0"),
        (Budget(max_drop=0.02), MIDDLE, "middle-1"),
        (Budget(max_drop=0.0199), LARGE, "large-0"),
        # 2.5 % of 0.8 is 0.02.
        (Budget(max_loss=0.025), MIDDLE, "middle-1"),
        (Budget(max_drop=0.03, max_loss=0.01), LARGE, "large-0"),
        (Budget(max_bytes=900), MIDDLE, "middle-1"),
        (Budget(max_bytes=899), SMALL, "small-0"),
        (Budget(max_bytes=10_000), LARGE, "large-0"),
        (Budget(max_drop=0.03, max_bytes=10_000), SMALL, "small-0"),
    ],
)
def test_the_choice_is_the_fewest_weights_within_a_drop_or_else_the_smallest_mean_drop(
    budget, combination, run
):
    chosen = budget.choose(ALL)
    assert chosen.combination is combination and chosen.run.name == run


def test_of_about_equally_many_weights_the_smallest_mean_drop_is_chosen():
    better, worse = combination("better", [0.01], kept=1005), combination("worse", [0.02], kept=1000)
    assert Budget(max_drop=0.03).choose([worse, better]).combination is better
    assert Budget(max_drop=0.03).choose([combination("more", [0.01], kept=1020), worse]).combination is worse


def test_combinations_with_a_failed_run_or_without_a_number_are_not_chosen():
    failed = combination("failed", [0.0], kept=1, failed=1)
    broken = combination("broken", [math.nan, 0.0], kept=1)
    assert Budget(max_drop=1.0).choose([failed, broken, LARGE]).combination is LARGE
    assert Budget(max_bytes=10_000).choose([broken, LARGE]).combination is LARGE


def test_none_within_the_budget_is_refused_with_what_comes_closest():
    words = r"a mean drop of at most 0\.05%: the smallest mean drop is 0\.15%, the smallest file 600 B"
    with pytest.raises(ValidationError, match=words):
        Budget(max_drop=0.0005).choose(ALL)
    with pytest.raises(ValidationError, match=r"files of at most 500 B"):
        Budget(max_bytes=500).choose(ALL)

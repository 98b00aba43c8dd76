"""The learning rate of each update."""

import math

import pytest

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.training.optimization import learning_rate


def config(**settings):
    return PruneConfig(**{"rate": 0.5, "learning_rate": 2.0, "warmup": 0, "schedule": "iterative"} | settings)


def rates(pruned=(), updates=40, **settings):
    given = config(learning_rate_schedule="rewind", **settings)
    return [learning_rate(given, update, updates, pruned) for update in range(updates)]


def half_cosine(length):
    return [1 + math.cos(math.pi * update / length) for update in range(length)]


def test_rewinding_starts_again_at_the_peak_after_each_pruning_step():
    # Steps fall before the first update, and after updates 10 and 15.
    assert rates((0, 10, 15)) == pytest.approx(half_cosine(10) + half_cosine(5) + half_cosine(25))


def test_one_step_at_the_start_leaves_the_cosine_over_the_whole_training():
    given = config(learning_rate_schedule="cosine")
    assert rates((0,)) == [learning_rate(given, update, 40) for update in range(40)]


def test_the_warm_up_after_a_step_is_at_most_a_tenth_of_the_way_to_the_next():
    found = rates((0, 20), warmup=100)
    peaks = half_cosine(20)
    assert found[:2] == pytest.approx([peaks[0] / 2, peaks[1]])
    assert found[20:22] == pytest.approx([peaks[0] / 2, peaks[1]])
    assert rates((0, 20), warmup=1) == pytest.approx(2 * peaks)


@pytest.mark.parametrize("schedule", ["gradual", "prune-and-regrow"])
def test_schedules_of_many_steps_are_not_rewound(schedule):
    with pytest.raises(SettingError, match=f"--schedule {schedule} has too many of them"):
        config(learning_rate_schedule="rewind", schedule=schedule)

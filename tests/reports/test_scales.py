"""The ticks of the axes: round, and neither too few nor too many."""

import pytest

from onnxprune.reports.scales import WHOLE, log_ticks, root_ticks, within


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 16, [1, 2, 5, 10]),
        (1, 130, [1, 2, 5, 10, 20, 50, 100]),
        (1.9, 4.2, [2, 2.5, 3, 3.5, 4]),
        (2.3, 12.1, [4, 6, 8, 10, 12]),
        (1e-6, 3e-1, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
    ],
)
def test_logarithmic_ticks_are_round(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_epochs_have_whole_ticks():
    assert WHOLE.ticks(0, 4) == [0, 1, 2, 3, 4]
    assert WHOLE.ticks(0, 2) == [0, 1, 2]
    assert WHOLE.ticks(0, 60) == [0, 20, 40, 60]


def test_counts_on_a_square_root_axis_are_round():
    assert root_ticks(0, 0) == [0, 1]
    assert root_ticks(0, 4000) == [0, 200, 1000, 2000]


def test_ticks_at_the_ends_of_the_range_are_within_it():
    assert within([0.1, 0.1 + 0.2, 0.5], 0.1, 0.3) == [0.1, 0.1 + 0.2]

"""The chart of a sweep: round ticks, labels apart, and every mean with its spread."""

import itertools
import re
from xml.etree import ElementTree

import pytest

from onnxprune.reports.scales import ticks_between
from onnxprune.reports.spread_chart import LABEL_LINE, spaced
from onnxprune.reports.sweep import compression, label_of, tradeoff_chart


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.013, 0.047, [0.01, 0.02, 0.03, 0.04, 0.05]),
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (28.1, 30.4, [28.0, 28.5, 29.0, 29.5, 30.0, 30.5]),
        (-0.3, 0.1, [-0.3, -0.2, -0.1, 0.0, 0.1]),
    ],
)
def test_ticks_are_round_numbers_around_the_values(low, high, ticks):
    assert ticks_between(low, high) == pytest.approx(ticks)


def test_equal_values_have_ticks_too():
    ticks = ticks_between(0.02, 0.02)
    assert len(ticks) > 1 and ticks[0] <= 0.02 <= ticks[-1]
    assert len(ticks_between(0.0, 0.0)) > 1


def test_labels_are_apart_in_the_order_of_their_lines():
    placed = spaced([50, 52, 20, 51], 0, 100)
    assert sorted(range(4), key=lambda index: placed[index]) == [2, 0, 3, 1]
    heights = sorted(placed)
    assert all(b - a >= LABEL_LINE for a, b in itertools.pairwise(heights))
    assert max(spaced([99, 100, 98], 0, 100)) <= 100


def combination(rate, schedule, value, deviation):
    return {
        "values": {"rate": rate, "schedule": schedule},
        "metric": "top-1",
        "mean": {"rate": rate, "value": value, "baseline": 0.98},
        "deviation": {"value": deviation},
    }


def test_a_curve_for_each_combination_of_the_other_settings_with_means_and_spreads():
    sweep = {
        "seeds": [0, 1],
        "combinations": [
            combination(0.75, "gradual", 0.97, 0.002),
            combination(0.5, "gradual", 0.975, 0.001),
            combination(0.5, "one-shot", 0.96, 0.0),
            {"values": {"rate": 0.75, "schedule": "one-shot"}, "errors": ["why"]},
        ],
    }
    root = ElementTree.fromstring(tradeoff_chart(sweep))
    tooltips = [each.text for each in root.iter() if each.tag.endswith("title")]
    # The error is 1 - value.
    assert tooltips == ["gradual: 2.50% ± 0.10%", "gradual: 3.00% ± 0.20%", "one-shot: 4.00%"]
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert {"2x", "4x", "gradual", "one-shot", "input model"} <= set(texts)
    assert "top-1 error on validation data, mean and standard deviation of 2 seeds" in texts
    assert re.search("prefers-color-scheme:dark", tradeoff_chart(sweep))


def test_an_axis_of_high_rates_is_logarithmic_in_the_density():
    assert compression(0.75) == 4 and compression(0.0) == 1 and compression(1.0) < 1e7


def test_a_curve_is_named_by_what_is_no_amount():
    values = {
        "rate": 0.9,
        "weight_decay": 1e-4,
        "criterion": "taylor",
        "exclude": ["a", "b"],
        "clip_norm": None,
    }
    assert label_of(values) == "weight_decay 0.0001, taylor, a + b, none"
    assert label_of({"rate": 0.9}) == "pruned"

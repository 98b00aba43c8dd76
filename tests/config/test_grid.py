"""Grids: which settings are axes, every combination, and what is refused before anything runs."""

import pytest

from onnxprune.config.grid import expand, read_grid
from onnxprune.config.sweep import SweepSettings
from onnxprune.errors import SettingError


def combinations(grid, settings=(), seeds=1):
    return [each.values for each in expand(grid, dict(settings), seeds).combinations]


def test_every_setting_with_a_list_is_an_axis_and_all_combinations_are_tried():
    grid = expand({"rate": ["80%", 0.9], "schedule": ["one-shot", "gradual"], "epochs": 3}, {}, 2)
    assert grid.axes == {"rate": [0.8, 0.9], "schedule": ["one-shot", "gradual"]}
    assert [each.values for each in grid.combinations] == [
        {"rate": 0.8, "schedule": "one-shot"},
        {"rate": 0.8, "schedule": "gradual"},
        {"rate": 0.9, "schedule": "one-shot"},
        {"rate": 0.9, "schedule": "gradual"},
    ]
    assert [(config.rate, config.schedule, config.epochs, config.seed) for config in grid.configs[:3]] == [
        (0.8, "one-shot", 3, 0),
        (0.8, "one-shot", 3, 1),
        (0.8, "gradual", 3, 0),
    ]


def test_a_list_of_one_value_is_no_axis_of_the_results():
    assert combinations({"rate": [0.8], "epochs": [1, 2]}) == [{"epochs": 1}, {"epochs": 2}]


def test_a_setting_of_several_values_is_an_axis_as_a_list_of_lists():
    (both,) = expand({"rate": 0.8, "exclude": ["fc1", "fc2"]}, {}, 1).configs
    assert both.exclude == ("fc1", "fc2")
    grid = expand(
        {"rate": 0.8, "exclude": [[], ["fc1", "fc2"]], "layer_rate": [["a=0.5"], {"b": 0.6}]}, {}, 1
    )
    assert [(config.exclude, config.layer_rate) for config in grid.configs] == [
        ((), (("a", 0.5),)),
        ((), (("b", 0.6),)),
        (("fc1", "fc2"), (("a", 0.5),)),
        (("fc1", "fc2"), (("b", 0.6),)),
    ]


def test_seeds_follow_the_common_one_or_are_those_of_the_grid():
    assert expand({"rate": 0.8, "seed": 5}, {}, 3).seeds == (5, 6, 7)
    assert expand({"rate": 0.8, "seed": [3, 1]}, {}, 1).seeds == (3, 1)


def test_common_settings_override_plain_ones_of_the_grid():
    assert [config.epochs for config in expand({"rate": 0.8, "epochs": 2}, {"epochs": 7}, 1).configs] == [7]


@pytest.mark.parametrize(
    ("grid", "settings", "seeds", "words"),
    [
        ({"rate": [0.8, 1.5]}, {}, 1, r"the combination rate=1.5 is not possible: --rate is 1.5"),
        (
            {"rate": [0.5, 0.8], "pattern": ["4x1", "2:4"]},
            {},
            1,
            r"the combination rate=0.8, pattern=2:4 is not possible: --pattern 2:4 always has",
        ),
        ({"rate": [0.8, 0.9]}, {"rate": 0.7}, 1, "--rate has a list of values in the grid"),
        ({"rate": [0.8, "80%"]}, {}, 1, "the combination rate=80% twice"),
        ({"rate": []}, {}, 1, "the grid's rate is an empty list"),
        (
            {"rate": 0.8, "exclude": ["fc1", ["fc2"]]},
            {},
            1,
            r"both values and lists: write \[\[A\], \[B, C\]\]",
        ),
        ({"rate": 0.8, "metric": [["f1"], ["top-1"]]}, {}, 1, "all runs are scored alike"),
        ({"rate": 0.8, "validation_split": [0.1, 0.2]}, {}, 1, "all runs are scored alike"),
        ({"schedule": ["gradual", "iterative"]}, {}, 1, "does not say how much to remove"),
        ({"rate": 0.8, "seed": [1, 2]}, {}, 3, "remove --seeds"),
        ({"rate": 0.8, "seed": [1, 1]}, {}, 1, "a seed twice"),
    ],
)
def test_a_grid_that_is_ambiguous_or_not_possible_is_refused(grid, settings, seeds, words):
    with pytest.raises(SettingError, match=words):
        expand(grid, settings, seeds)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rates: [0.8]", "unknown setting 'rates'; do you mean 'rate'"),
        ("checkpoint: a", "remove 'checkpoint'"),
        ("workers: [1, 2]", "workers is for the whole sweep"),
        ("- rate", "has no settings"),
    ],
)
def test_a_file_that_is_no_grid_is_refused(tmp_path, text, words):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(SettingError, match=words):
        read_grid(tmp_path / "grid.yaml")


def test_a_sweep_needs_a_grid():
    with pytest.raises(SettingError, match="a sweep needs a grid: give --grid FILE"):
        SweepSettings()

"""The trials that a search leaves."""

import errno
import json
from pathlib import Path

import pytest

from onnxprune.errors import OutputError
from onnxprune.job import folders
from onnxprune.job.search.frontier import Frontier, Trial, best_at_least, best_within


def trial(number, rate, drop):
    return Trial(
        number, rate, 1, None, 10, 10, "top-1", 0.9, 0.9 + drop, drop, 0.01, 1.0, f"trial-{number:02}.onnx"
    )


def test_an_index_names_only_models_that_exist(tmp_path):
    frontier = Frontier.begin(tmp_path / "f", {}, resume=False)
    for each in (trial(0, 0.5, 0.02), trial(1, 0.75, 0.01), trial(2, 0.75, 0.03)):
        (tmp_path / "f" / each.model).touch()
        frontier.add(each)
    index = json.loads((tmp_path / "f" / "frontier.json").read_text())
    assert [each["model"] for each in index["trials"]] == [None, "trial-01.onnx", None]
    assert {path.name for path in Path(tmp_path / "f").iterdir()} == {"frontier.json", "trial-01.onnx"}


def test_of_two_equal_trials_the_later_one_keeps_its_model_and_is_the_best(tmp_path):
    frontier = Frontier.begin(tmp_path / "f", {}, resume=False)
    for each in (trial(0, 0.5, 0.01), trial(1, 0.75, 0.02), trial(2, 0.75, 0.02)):
        (tmp_path / "f" / each.model).touch()
        frontier.add(each)
    assert [each.model for each in frontier.trials] == ["trial-00.onnx", None, "trial-02.onnx"]
    assert best_within(frontier.trials, 0.02) == best_at_least(frontier.trials, 0.6) == frontier.trials[2]


def test_a_drop_is_within_a_budget_that_it_equals():
    within = trial(0, 0.5, 0.9967 - 0.9867)
    assert within.drop > 0.01 and best_within([within], 0.01) == within
    assert best_within([trial(0, 0.5, 0.0101)], 0.01) is None


def test_a_search_whose_index_cannot_be_written_leaves_no_folder(tmp_path, monkeypatch):
    def full(path, mode):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders, "replacing", full)
    with pytest.raises(OutputError, match="No space left"):
        Frontier.begin(tmp_path / "f", {}, resume=False)
    assert not (tmp_path / "f").exists()

"""Picking a model from the trials of a search."""

import shutil

import numpy as np
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune.commands.pick import pick
from onnxprune.errors import SettingError
from onnxprune.job.search.frontier import Frontier, Trial
from tests.builders import mlp, normal


def outputs(path, x):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def test_a_picked_model_brings_its_external_data_along(tmp_path):
    frontier = Frontier.begin(tmp_path / "f", {}, resume=False)
    model = tmp_path / "f" / "trial-00.onnx"
    onnxprune.prune(mlp(64, 128), model, rate=0.5, external_data="always", format="dense")
    x = normal(4, 64)
    wanted = outputs(model, x)
    frontier.add(Trial(0, 0.5, 1, None, 10, 10, "top-1", 0.9, 0.9, 0.0, 0.01, 1.0, model.name))
    pick(tmp_path / "f", tmp_path / "picked.onnx", rate=0.5)
    shutil.rmtree(tmp_path / "f")
    assert (tmp_path / "picked.onnx.data").exists()
    np.testing.assert_array_equal(outputs(tmp_path / "picked.onnx", x), wanted)


@pytest.mark.parametrize("asked", [{}, {"rate": 0.5, "max_drop": 0.1}])
def test_one_of_rate_and_max_drop_says_which_trial(asked, tmp_path):
    with pytest.raises(SettingError, match=r"give either --rate R, .* or --max-drop DROP"):
        pick(tmp_path, tmp_path / "picked.onnx", **asked)


def test_a_drop_is_in_the_unit_of_the_metric(tmp_path):
    frontier = Frontier.begin(tmp_path / "f", {}, resume=False)
    frontier.add(Trial(0, 0.5, 1, None, 10, 10, "psnr", 30.0, 29.0, 1.0, 0.1, 1.0, "trial-00.onnx"))
    with pytest.raises(SettingError, match=r"has a drop of 0\.30 dB or less"):
        pick(tmp_path / "f", tmp_path / "picked.onnx", max_drop=0.3)


@pytest.mark.parametrize(
    ("holds", "reason"),
    [
        (None, r"f is not the folder of a search: it does not exist; give the \.frontier folder"),
        ({}, r"it has no frontier\.json; give the \.frontier folder"),
        ({"frontier.json": "{"}, r"its frontier\.json is damaged; give"),
        ({"frontier.json": "[]"}, r"its frontier\.json is damaged; give"),
        ({"frontier.json": '{"trials": [{"rate": 1}]}'}, r"damaged, or of another version; give"),
        ({"sweep.json": "{}"}, r"f is the folder of a sweep, .* --folder \S+f --resume`, .* --max-bytes$"),
    ],
)
def test_a_folder_that_is_not_of_a_search_is_refused_with_the_reason(holds, reason, tmp_path):
    folder = tmp_path / "f"
    if holds is not None:
        folder.mkdir()
        for name, content in holds.items():
            (folder / name).write_text(content)
    with pytest.raises(SettingError, match=reason):
        pick(folder, tmp_path / "picked.onnx", rate=0.5)


def test_a_search_without_trials_says_so(tmp_path):
    Frontier.begin(tmp_path / "f", {}, resume=False)
    with pytest.raises(SettingError, match=r"has finished no trial yet: go on with it with --resume"):
        pick(tmp_path / "f", tmp_path / "picked.onnx", max_drop=0.1)

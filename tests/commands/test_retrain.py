"""Retraining what a job left, on new data."""

import numpy as np
import pytest
from onnx import helper

import onnxprune
from onnxprune.errors import SettingError
from onnxprune.model.files.io import load
from onnxprune.model.weights import find_weights
from onnxprune.sparse.restore import from_ops
from tests.builders import cnn, floats, mlp, model_of, normal


def quadrants(count, seed):
    """Points, and the quadrant of each by its first two coordinates."""
    x = normal(count, 8, seed=seed)
    return {"x": x, "labels": (x[:, 0] > 0) + 2 * (x[:, 1] > 0)}


NEW, OLD = quadrants(200, seed=1), quadrants(50, seed=2)
# The made weights are large: what is to come back has to grow as large.
SETTINGS = {"data": NEW, "epochs": 4, "batch_size": 20, "learning_rate": 0.2, "warmup": 0}


def prune(path, **settings):
    onnxprune.prune(
        mlp(8, 64), path, **({"rate": 0.8, "allocation": "global", "remove_dead": False} | settings)
    )
    return path


def weights(path):
    model, _ = load(path)
    from_ops(model)
    return {weight.name: weight.copy() for weight in find_weights(model).prunable}


@pytest.mark.parametrize("values", ["fp32", "int8"])
@pytest.mark.parametrize("form", ["ops", "dense", "coo"])
def test_zeros_stay_and_weights_move_in_every_format(form, values, tmp_path):
    if values != "fp32" and form != "ops":
        pytest.skip("only sparse nodes store other values")
    pruned = prune(tmp_path / "pruned.onnx", format=form, values=values)
    report = onnxprune.retrain(pruned, tmp_path / "out.onnx", remove_dead=False, **SETTINGS).report
    before, after = weights(pruned), weights(tmp_path / "out.onnx")
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert not after[name][array == 0].any()
        assert not np.array_equal(after[name], array)
    assert report.settings["format"] == form and report.settings["values"] == values
    assert {layer.format for layer in report.layers} <= {form, "dense"}


@pytest.mark.parametrize("form", ["ops", "coo"])
def test_regrow_keeps_the_density_of_every_layer(form, tmp_path):
    pruned = prune(tmp_path / "pruned.onnx", format=form)
    onnxprune.retrain(pruned, tmp_path / "out.onnx", regrow=True, remove_dead=False, **SETTINGS)
    before, after = weights(pruned), weights(tmp_path / "out.onnx")
    for name, array in before.items():
        assert np.count_nonzero(after[name]) == np.count_nonzero(array)
    assert any(after[name][array == 0].any() for name, array in before.items())


def test_blocks_regrow_and_are_removed_whole(tmp_path):
    pruned = prune(tmp_path / "pruned.onnx", pattern="4x1", allocation="uniform")
    onnxprune.retrain(pruned, tmp_path / "out.onnx", regrow=True, remove_dead=False, **SETTINGS)
    before, after = (
        (weights(path)["fc1.weight"].reshape(16, 4, 8) != 0).any(1)
        for path in (pruned, tmp_path / "out.onnx")
    )
    assert before.sum() == after.sum() and (before != after).any()
    with pytest.raises(SettingError, match="two of every four"):
        pairs = prune(tmp_path / "pairs.onnx", pattern="2:4", rate=0.5, allocation="uniform")
        onnxprune.retrain(pairs, tmp_path / "out.onnx", regrow=True, **SETTINGS)


def test_both_models_are_evaluated_on_the_old_data_and_the_new(tmp_path):
    pruned = prune(tmp_path / "pruned.onnx")
    report = onnxprune.retrain(pruned, old_data=OLD, eval_data=NEW, **SETTINGS).report
    assert report.evaluation["samples"] == 200 and report.old_evaluation["samples"] == 50
    alone = onnxprune.retrain(pruned, eval_data=OLD, **SETTINGS).report
    for side in ("baseline", "pruned"):
        assert report.old_evaluation[side] == alone.evaluation[side]
    assert report.evaluation["pruned"]["value"] > report.evaluation["baseline"]["value"]


def test_retrain_distills_nothing_where_there_are_labels(tmp_path):
    pruned = prune(tmp_path / "pruned.onnx")
    assert onnxprune.retrain(pruned, **SETTINGS).report.settings["distill"] == 0
    assert onnxprune.retrain(pruned, distill=0.5, **SETTINGS).report.settings["distill"] == 0.5
    batches = ({"x": NEW["x"][i : i + 50]} for i in range(0, 200, 50))
    assert onnxprune.retrain(pruned, **SETTINGS | {"data": batches}).report.settings["distill"] is None


def test_retrain_takes_no_setting_that_the_model_decides(tmp_path):
    pruned = prune(tmp_path / "pruned.onnx")
    with pytest.raises(SettingError, match="rate is not a setting of retrain"):
        onnxprune.retrain(pruned, rate=0.5, **SETTINGS)
    with pytest.raises(SettingError, match="give --data"):
        onnxprune.retrain(pruned, data=None)


def test_images_become_inputs_as_in_the_job_that_wrote_the_model(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), np.uint8)
    onnxprune.prune(cnn(), tmp_path / "out.onnx", rate=0.5, eval_data={"x": images}, transform="tf")
    settings = {"data": {"x": images, "labels": np.arange(40) % 4}, "epochs": 1}
    again = onnxprune.retrain(tmp_path / "out.onnx", **settings).report
    assert again.settings["transform"] == "tf"
    other = onnxprune.retrain(tmp_path / "out.onnx", transform="raw", **settings).report
    assert other.settings["transform"] == "raw"
    assert other.fine_tuning[0]["loss"] != pytest.approx(again.fine_tuning[0]["loss"])


def test_labels_that_no_loss_takes_are_for_the_metric_and_the_model_is_distilled(tmp_path):
    pruned = prune(tmp_path / "pruned.onnx")
    pairs = {"x": normal(60, 8), "labels": np.repeat(np.linspace(0, 1, 30), 2)}
    settings = SETTINGS | {"data": pairs, "metric": "spearman", "epochs": 1}
    result = onnxprune.retrain(pruned, **settings)
    assert result.report.settings["distill"] is None
    assert any("for the metric alone" in note for note in result.report.notes)


def test_the_batch_axes_that_were_given_stay_with_the_file(tmp_path):
    # Every row is independent, so that the first axis would do as well.
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    proto = model_of(nodes, [floats("x", "a", "b", 8)], [floats("y", "a", "b", 40)], {"w": normal(8, 40)})
    onnxprune.prune(proto, tmp_path / "pruned.onnx", rate=0.5, batch_axis={"x": 1}, remove_dead=False)
    data = {"x": normal(3, 20, 8)}
    report = onnxprune.retrain(tmp_path / "pruned.onnx", data=data, epochs=1, batch_size=4).report
    assert report.settings["batch_axis"] == ["x:1"] and report.sample["x"] == (3, 1, 8)

"""The whole job on real models, evaluated in onnxruntime."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

import onnxprune
from onnxprune.errors import ValidationError
from tests.builders import cnn, floats, initializer, mlp, model_of, normal

MODELS = Path(__file__).parents[2] / "models"
SAMPLE = MODELS / "mnist-sample"
TRAINING = SAMPLE / "train-images-idx3-ubyte.gz"
TEST = SAMPLE / "t10k-images-idx3-ubyte.gz"


def outputs(model: onnx.ModelProto, shape: tuple[int, ...]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = np.random.default_rng(0).random(shape, dtype=np.float32)
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet-300-100", (16, 784)), ("lenet-5", (16, 1, 28, 28))],
    ids=["lenet-300-100", "lenet-5"],
)
def test_every_format_gives_the_outputs_of_the_zeroed_dense_model(name, shape, allocation, tmp_path):
    path = MODELS / f"{name}.onnx"
    zeroed = onnxprune.prune(path, rate=0.9, allocation=allocation, format="dense", remove_dead=False)
    expected = outputs(zeroed.model, shape)
    total = sum(layer.size for layer in zeroed.report.layers)
    assert sum(layer.kept for layer in zeroed.report.layers) == total - (
        round(0.9 * total)
        if allocation == "global"
        else sum(round(0.9 * layer.size) for layer in zeroed.report.layers)
    )
    for form in ("dense", "ops", "coo"):
        out = tmp_path / f"{form}.onnx"
        report = onnxprune.prune(path, out, rate=0.9, allocation=allocation, format=form).report
        np.testing.assert_allclose(outputs(onnx.load(out), shape), expected, rtol=1e-4, atol=1e-4)
        assert report.pruned.bytes == out.stat().st_size
        if form != "coo":  # the checker knows no sparse_initializer
            onnx.checker.check_model(onnx.load(out), full_check=True)
    assert (tmp_path / "ops.onnx").stat().st_size < path.stat().st_size / 7


def test_lenet_300_100_at_12x_is_fine_tuned_on_the_sample(tmp_path):
    out = tmp_path / "out.onnx"
    settings = {
        "rate": 0.917,
        "allocation": "global",
        "learning_rate": 1e-3,
        "epochs": 20,
        "data": TRAINING,
        "eval_data": TEST,
    }
    report = onnxprune.prune(MODELS / "lenet-300-100.onnx", out, **settings).report
    one_shot = onnxprune.prune(
        MODELS / "lenet-300-100.onnx", rate=0.917, allocation="global", eval_data=TEST
    ).report
    error, without = (1 - each.evaluation["pruned"]["value"] for each in (report, one_shot))
    assert report.evaluation["samples"] == 2000
    assert error < 0.035 < without
    assert out.stat().st_size * 7 < report.baseline.bytes
    assert report.pruned.nonzero <= 0.084 * report.baseline.nonzero + 500


def test_whole_channels_are_removed_from_a_real_model_and_the_rest_is_fine_tuned(tmp_path):
    settings = {"rate": 0.5, "pattern": "channel", "data": TRAINING, "eval_data": TEST, "epochs": 4}
    report = onnxprune.prune(MODELS / "lenet-300-100.onnx", tmp_path / "out.onnx", **settings).report
    one_shot = onnxprune.prune(
        MODELS / "lenet-300-100.onnx", rate=0.5, pattern="channel", eval_data=TEST
    ).report
    assert report.pruned.multiply_adds == pytest.approx(0.5 * report.baseline.multiply_adds, rel=0.02)
    assert report.pruned.nonzero == report.pruned.parameters
    assert one_shot.evaluation["pruned"]["value"] < report.evaluation["pruned"]["value"] > 0.95
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)


def test_channels_are_kept_in_multiples_of_round_to():
    report = onnxprune.prune(
        MODELS / "lenet-5.onnx", rate=0.5, pattern="channel", round_to=4, exclude="conv1*"
    ).report
    kept = {layer["name"]: layer["outputs_after"] for layer in report.surgery["layers"]}
    assert kept["conv1.weight"] == 20 and kept["fc2.weight"] == 10
    assert kept["conv2.weight"] % 4 == 0 and kept["fc1.weight"] % 4 == 0 and kept["fc1.weight"] < 500


def with_frozen_layers():
    """Two convolutions between one whose output is the graph's and a large layer: only widths 32 and 32 can shrink."""
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a0"], "conv0"),
        helper.make_node("Conv", ["a0", "w1"], ["a1"], "conv1"),
        helper.make_node("Conv", ["a1", "w2"], ["seen"], "conv2"),
        helper.make_node("Flatten", ["seen"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["y"], "fc"),
    ]
    shapes = {"w0": (32, 3, 1, 1), "w1": (32, 32, 1, 1), "w2": (16, 32, 1, 1), "w3": (16, 1000)}
    return model_of(
        nodes,
        [floats("x", "N", 3, 1, 1)],
        [floats("y", "N", 1000), floats("seen", "N", 16, 1, 1)],
        {name: normal(*shape) for name, shape in shapes.items()},
    )


def test_no_layer_is_emptied_to_make_up_for_one_that_cannot_be_cut():
    result = onnxprune.prune(with_frozen_layers(), rate=0.5, pattern="channel")
    left = {name: initializer(result.model, name).shape[0] for name in ("w0", "w1", "w2")}
    assert 12 <= left["w0"] <= 24 and 12 <= left["w1"] <= 24 and left["w2"] == 16
    notes = "\n".join(result.report.notes)
    assert "90.7% of the weights are in no channel that can be removed" in notes and "w3 90.7%" in notes
    assert "Only" not in notes


def test_a_rate_that_channels_cannot_have_is_told_with_what_would_help():
    result = onnxprune.prune(with_frozen_layers(), rate=0.99, pattern="channel")
    assert [initializer(result.model, name).shape[0] for name in ("w0", "w1")] == [4, 4]
    (note,) = [note for note in result.report.notes if note.startswith("Only")]
    assert "less than --rate 0.99 asks for" in note
    assert "a higher --max-channel-rate (2 layers have lost 87.5% of the channels" in note
    higher = onnxprune.prune(with_frozen_layers(), rate=0.99, pattern="channel", max_channel_rate=0.97)
    assert [initializer(higher.model, name).shape[0] for name in ("w0", "w1")] == [1, 1]


def test_the_rate_of_a_layer_is_of_its_channels_and_beyond_the_limit():
    result = onnxprune.prune(
        with_frozen_layers(), rate=0, layer_rate={"conv1": 30 / 32}, pattern="channel", exclude="w0"
    )
    assert [initializer(result.model, name).shape[0] for name in ("w0", "w1")] == [32, 2]
    with pytest.raises(onnxprune.OnnxPruneError, match="'w3', which has no output channels"):
        onnxprune.prune(with_frozen_layers(), rate=0.5, layer_rate={"fc": 0.5}, pattern="channel")


def test_taylor_importance_gives_a_lower_loss_than_l1():
    settings = {
        "rate": 0.7,
        "pattern": "channel",
        "data": TRAINING,
        "eval_data": TEST,
        "epochs": 2,
        "schedule": "iterative",
        "steps": 1,
    }
    losses = {
        criterion: [record["loss"] for record in report.fine_tuning]
        for criterion in ("taylor", "l1")
        if (report := onnxprune.prune(MODELS / "lenet-300-100.onnx", criterion=criterion, **settings).report)
    }
    assert all(taylor < l1 for taylor, l1 in zip(losses["taylor"], losses["l1"], strict=True))


def test_hidden_units_of_an_lstm_alone_can_be_pruned():
    rng = np.random.default_rng(0)
    shapes = {"w": (1, 64, 8), "r": (1, 64, 16), "w2": (1, 16, 16), "r2": (1, 16, 4)}
    model = model_of(
        [
            helper.make_node("LSTM", ["x", "w", "r"], ["s"], "first", hidden_size=16),
            helper.make_node("Squeeze", ["s", "axis"], ["t"], "squeeze"),
            helper.make_node("LSTM", ["t", "w2", "r2"], ["y"], "second", hidden_size=4),
        ],
        [floats("x", 5, "N", 8)],
        [floats("y", 5, 1, "N", 4)],
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        | {"axis": np.array([1])},
    )
    result = onnxprune.prune(model, rate=0.4, pattern="channel")
    assert initializer(result.model, "w").shape[1] < 64


def test_a_model_without_a_weight_is_refused_unless_the_rate_is_0():
    relu = model_of(
        [helper.make_node("Relu", ["x"], ["y"])], [floats("x", "N", 8)], [floats("y", "N", 8)], {}
    )
    with pytest.raises(onnxprune.OnnxPruneError, match="has no weight that can be pruned"):
        onnxprune.prune(relu, rate=0.4)
    assert onnxprune.prune(relu, rate=0).report.evaluation["outputs"][0]["absolute"] == 0


def test_unlabeled_data_fine_tunes_towards_the_outputs_of_the_baseline():
    rows = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    settings = {"rate": 0.7, "eval_data": {"x": rows[:50]}}
    fine_tuned = onnxprune.prune(
        mlp(), data={"x": rows}, learning_rate=1e-2, batch_size=32, **settings
    ).report
    one_shot = onnxprune.prune(mlp(), **settings).report
    assert fine_tuned.evaluation["outputs"][0]["cosine"] > one_shot.evaluation["outputs"][0]["cosine"]


def test_the_model_given_is_not_changed_and_the_result_is_in_memory():
    proto = cnn()
    result = onnxprune.prune(proto, rate=0.5, format="dense")
    assert proto == cnn()
    assert result.path is None and np.count_nonzero(initializer(result.model, "fc.weight")) <= 288


def test_metadata_explains_the_file_and_pruning_again_replaces_it(tmp_path):
    first = onnxprune.prune(mlp(), tmp_path / "first.onnx", rate=0.5)
    second = onnxprune.prune(tmp_path / "first.onnx", tmp_path / "second.onnx", rate=0.8)
    written = [onnx.load(result.path) for result in (first, second)]
    for model, rate in zip(written, ("0.5", "0.8"), strict=True):
        properties = [prop for prop in model.metadata_props if prop.key == "onnxprune.settings"]
        assert len(properties) == 1 and json.loads(properties[0].value)["rate"] == float(rate)
    assert [layer.name for layer in second.report.layers] == [layer.name for layer in first.report.layers]
    assert second.report.baseline.nonzero == first.report.pruned.nonzero


def test_rate_zero_changes_nothing_but_the_annotations(tmp_path):
    onnx.save(cnn(), tmp_path / "in.onnx")
    onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", rate=0.0)
    written = onnx.load(tmp_path / "out.onnx")
    del written.metadata_props[:]
    assert written == cnn()


def test_external_data_stays_external_in_every_format(tmp_path):
    onnx.save(
        mlp(64, 128), tmp_path / "in.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    expected = outputs(onnxprune.prune(tmp_path / "in.onnx", rate=0.9, format="dense").model, (16, 64))
    for form in ("dense", "ops", "coo"):
        out = tmp_path / f"{form}.onnx"
        report = onnxprune.prune(tmp_path / "in.onnx", out, rate=0.9, format=form).report
        data = tmp_path / f"{form}.onnx.data"
        assert report.pruned.bytes == out.stat().st_size + (data.stat().st_size if data.exists() else 0)
        np.testing.assert_allclose(outputs(onnx.load(out), (16, 64)), expected, rtol=1e-5, atol=1e-5)


def test_an_opset_without_sparse_nodes_is_converted_and_still_the_same(tmp_path):
    old = mlp(64, 128, opset=9)
    result = onnxprune.prune(old, rate=0.9)
    assert {layer.format for layer in result.report.layers} == {"ops"}
    dense = onnxprune.prune(old, rate=0.9, format="dense")
    np.testing.assert_allclose(
        outputs(result.model, (8, 64)), outputs(dense.model, (8, 64)), rtol=1e-5, atol=1e-5
    )
    assert {opset.domain: opset.version for opset in dense.model.opset_import}[""] == 9


def test_a_result_worse_than_allowed_is_refused():
    with pytest.raises(
        ValidationError,
        match=r"worse by 6\.25% \(absolute, agreement .*\) on random inputs, --max-drop allows 0\.10%",
    ):
        onnxprune.prune(mlp(), rate=0.95, max_drop=0.001)
    assert onnxprune.prune(mlp(), rate=0.0, max_drop=0.001).report.evaluation["outputs"][0]["agreement"] == 1

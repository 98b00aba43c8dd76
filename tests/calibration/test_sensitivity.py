import itertools
from functools import partial

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune.calibration.sensitivity import measure
from onnxprune.commands.sensitivity import sensitivity
from onnxprune.data.batch import Batch
from onnxprune.errors import SettingError
from onnxprune.model.weights import find_weights
from onnxprune.pruning.sensitivity import Scan, scan
from tests.builders import cnn, floats, mlp, model_of, normal, open_conv

RATES = (0.5, 0.9)
X = normal(40, 1, 8, 8)
LABELS = np.arange(40) % 4


def scanned(state=None, about=None, stop_after=None):
    model = ir.from_proto(cnn())
    weights = find_weights(model).prunable
    measured = partial(measure, model, Batch({"x": X}, {"": LABELS}))
    return list(itertools.islice(scan(weights, measured, RATES, about or {}, state), stop_after))[-1]


def test_a_scan_from_the_layer_on_finds_what_a_run_of_the_whole_model_finds():
    found = scanned()
    dense = run(cnn())
    for name, rate in (("conv1.weight", 0.5), ("conv2.weight", 0.9), ("fc.weight", 0.5)):
        others = [other for other in found.layers if other != name]
        pruned = onnxprune.prune(cnn(), rate=rate, exclude=others, format="dense", remove_dead=False).model
        outputs = run(pruned)
        deviation, error = found.layers[name][rate]
        assert deviation == pytest.approx(((outputs - dense) ** 2).sum() / (dense**2).sum(), rel=1e-4)
        assert error == pytest.approx((outputs.argmax(1) != LABELS).mean())


def test_a_weight_read_twice_or_behind_a_transpose_is_pruned_wherever_it_is_read():
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("MatMul", ["x", "v"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "t"], ["b"], "second"),
        helper.make_node("MatMul", ["b", "v"], ["y"], "third"),
    ]
    proto = model_of(
        nodes,
        [floats("x", "N", 8)],
        [floats("y", "N", 8)],
        {"w": normal(8, 8), "v": normal(8, 8, seed=1)},
    )
    x, model = normal(20, 8), ir.from_proto(proto)
    measured = partial(measure, model, Batch({"x": x}))
    weights = find_weights(model).prunable
    *_, found = scan(weights, measured, RATES, {}, None)
    arrays = {weight.name: weight.array() for weight in weights}
    expected = x @ arrays["v"] @ arrays["w"].T @ arrays["v"]
    for name in arrays:
        kept = np.abs(arrays[name]) >= np.median(np.abs(arrays[name]))
        pruned = arrays | {name: arrays[name] * kept}
        outputs = x @ pruned["v"] @ pruned["w"].T @ pruned["v"]
        moved = ((outputs - expected) ** 2).sum() / (expected**2).sum()
        assert found.layers[name][0.5][0] == pytest.approx(moved, rel=1e-4)


def test_what_a_softmax_reads_is_compared_in_the_place_of_its_probabilities():
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("Softmax", ["a"], ["early"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Softmax", ["b"], ["late"]),
    ]
    outputs = [floats("early", "N", 8), floats("late", "N", 4), floats("constant", 3)]
    constants = {"v": normal(8, 8), "w": normal(8, 4, seed=1), "constant": normal(3)}
    proto = model_of(nodes, [floats("x", "N", 8)], outputs, constants)
    x, labels = normal(20, 8), np.arange(20) % 8
    found = sensitivity(proto, {"x": x, "labels": labels}, rates=(0.5,))
    assert found.about["compared"] == ["a", "b"]
    v, w = normal(8, 8), normal(8, 4, seed=1)
    kept = w * (np.abs(w) > np.median(np.abs(w)))
    moved = ((x @ v @ kept - x @ v @ w) ** 2).sum()
    whole = sum((y**2).sum() for y in (x @ v, x @ v @ w))
    deviation, error = found.layers["w"][0.5]
    assert deviation == pytest.approx(moved / whole, rel=1e-4)
    assert error == pytest.approx(((x @ v).argmax(1) != labels).mean())


def test_synthetic_inputs_have_the_shape_asked_for():
    proto = open_conv()
    found = sensitivity(proto, "synthetic", input_shape={"x": (1, 3, 7, 30)}, rates=(0.5,), samples=8)
    assert found.about["shapes"] == {"x": [1, 3, 7, 30]} and found.about["samples"] == 8
    with pytest.raises(SettingError, match="no such input"):
        sensitivity(proto, "synthetic", input_shape={"z": (1, 3, 7, 30)})


def test_an_interrupted_scan_resumes_from_its_file_to_the_same_result(tmp_path):
    state = tmp_path / "scan.json"
    scanned(state, {"model": "a"}, stop_after=1)
    assert list(Scan.load(state).layers) == ["conv1.weight"]
    resumed = scanned(state, {"model": "a"})
    assert resumed.layers == Scan.load(state).layers
    for name, rows in scanned().layers.items():
        for rate, row in rows.items():
            assert resumed.layers[name][rate] == pytest.approx(row)


def test_a_file_of_another_scan_is_refused(tmp_path):
    state = tmp_path / "scan.json"
    scanned(state, {"model": "a"}, stop_after=1)
    with pytest.raises(SettingError, match="holds a scan with other model: give another file"):
        scanned(state, {"model": "b"})
    state.write_text("{}")
    with pytest.raises(SettingError, match="not a sensitivity scan"):
        scanned(state, {"model": "a"})


def test_sensitivity_allocation_changes_the_outputs_less_than_uniform():
    settings = {"rate": 0.6, "eval_data": {"x": normal(100, 1, 8, 8, seed=3)}}
    cosines = [
        onnxprune.prune(cnn(), allocation=allocation, calibration_data={"x": X}, **settings)
        .report.evaluation["outputs"][0]["cosine"]
        for allocation in ("uniform", "sensitivity")
    ]  # fmt: skip
    assert cosines[1] > cosines[0]


@pytest.mark.parametrize("rate", [0.96, 0.99])
def test_a_rate_above_the_usual_ladder_is_reached_with_different_rates_by_layer(rate):
    layers = onnxprune.prune(
        mlp(100, 200, 20),
        rate=rate,
        allocation="sensitivity",
        calibration_data={"x": normal(40, 100)},
        remove_dead=False,
    ).report.layers
    assert 1 - sum(one.kept for one in layers) / sum(one.size for one in layers) == pytest.approx(
        rate, abs=1e-3
    )
    assert len({round(one.rate, 2) for one in layers}) > 1


def run(model):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]


def test_the_tensors_of_a_sequence_and_what_an_arg_max_reads_are_compared():
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "fc1"),
        helper.make_node("SequenceConstruct", ["h", "x"], ["kept"]),
        helper.make_node("MatMul", ["h", "w2"], ["y"], "fc2"),
        helper.make_node("ArgMax", ["y"], ["label"], axis=1),
    ]
    kept = helper.make_tensor_sequence_value_info("kept", TensorProto.FLOAT, None)
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N", 1])
    weights = {"w1": normal(8, 6, seed=1), "w2": normal(6, 4, seed=2)}
    model = model_of(nodes, [floats("x", "N", 8)], [label, kept], weights)
    x = normal(32, 8, seed=3)
    found = onnxprune.sensitivity(model, data={"x": x}, rates=[0.5])
    w1, w2 = weights.values()
    pruned = np.where(np.abs(w1) > np.sort(np.abs(w1).ravel())[23], w1, 0)
    moved = (np.square(x @ pruned @ w2 - x @ w1 @ w2).sum() + np.square(x @ pruned - x @ w1).sum()) / (
        np.square(x @ w1 @ w2).sum() + np.square(x @ w1).sum() + np.square(x).sum()
    )
    assert found.layers["w1"][0.5][0] == pytest.approx(moved, rel=1e-4)

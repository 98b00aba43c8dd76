import itertools
from functools import partial

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.calibration.sensitivity import measure
from onnxprune.cli.tables.scan import scan_table
from onnxprune.commands.sensitivity import sensitivity
from onnxprune.data.batch import Batch
from onnxprune.errors import SettingError
from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.model.weights import find_weights
from onnxprune.pruning.sensitivity import Scan, pruned_arrays, scan
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


def branching():
    """x [N, 8] -> MatMul first -> If, by the sum of x, with a weight and a Constant of the same names in its bodies."""

    def branch(name, seed):
        node = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(normal(8, 8, seed=seed)))
        nodes = [
            node,
            helper.make_node("MatMul", ["a", "w"], ["b"], f"{name}_w"),
            helper.make_node("MatMul", ["b", "c"], ["out"], f"{name}_c"),
        ]
        weight = numpy_helper.from_array(normal(8, 8, seed=seed + 1), "w")
        return helper.make_graph(nodes, name, [], [floats("out", "N", 8)], [weight])

    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], "first"),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["y"], then_branch=branch("then", 1), else_branch=branch("else", 3)
        ),
    ]
    constants = {"first": normal(8, 8), "zero": np.zeros((), np.float32)}
    return model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 8)], constants)


def test_weights_in_the_bodies_of_an_if_are_measured_each_for_itself():
    x, model = np.abs(normal(20, 8)), ir.from_proto(branching())
    weights = find_weights(model).prunable
    *_, found = scan(weights, partial(measure, model, Batch({"x": x})), (0.5,), {}, None)
    names = {"first", "then_w", "then_c", "else_w", "else_c"}
    assert {weight.uses[0].node.name for weight in weights} == names
    session = ort.InferenceSession(branching().SerializeToString(), providers=["CPUExecutionProvider"])
    (dense,) = session.run(None, {"x": x})
    for weight in weights:
        kept, tensor = weight.array(), constant_tensor(weight.value)
        set_constant(weight.value, pruned_arrays(weight, (0.5,))[0.5], tensor.dtype)
        proto = ir.to_proto(model).SerializeToString()
        (outputs,) = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        set_constant(weight.value, kept, tensor.dtype)
        moved = ((outputs - dense) ** 2).sum() / (dense**2).sum()
        assert found.layers[weight.name][0.5][0] == pytest.approx(moved, rel=1e-4, abs=1e-9)
        # The sum of these inputs is positive.
        assert (moved > 0) == (not weight.uses[0].node.name.startswith("else"))


def test_a_finished_scan_of_weights_in_bodies_is_read_from_its_file(tmp_path):
    data = {"x": normal(20, 8)}
    first, again = (sensitivity(branching(), data, rates=(0.5,), state=tmp_path / "s.json") for _ in range(2))
    assert first.layers == again.layers and len(first.layers) == 5


def test_labels_that_are_numbers_have_no_error_and_the_table_says_deviation():
    x = normal(20, 8)
    found = sensitivity(mlp(), {"x": x, "labels": normal(20, 4, seed=1)}, rates=(0.5,))
    assert found.about["labeled"] and not found.scored
    assert str(scan_table(found).title).startswith("deviation |y - y0|")

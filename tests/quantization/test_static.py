"""Models in int8: what stays, what is measured, and how near their outputs are."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.errors import ModelFileError, NothingToPruneError, SettingError
from onnxprune.model.weights import find_weights
from onnxprune.quantization.ranges import measured
from onnxprune.quantization.static import QDQ, QOPERATOR, Form, quantized
from tests.builders import cnn, floats, mlp, model_of, normal


def batches(*shape, count=4, name="x"):
    return [{name: normal(*shape, seed=seed)} for seed in range(count)]


def run(model, feeds):
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def near(one, other):
    return np.square(one - other).sum() / np.square(one).sum()


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "entropy"])
def test_weights_keep_names_and_zeros_and_outputs_are_near(ranges):
    model = ir.from_proto(cnn())
    dense = {}
    for weight in find_weights(model).prunable:
        weight.prune(np.abs(weight.numbers()) < 0.5 * weight.numbers().std())
        dense[weight.name] = weight.numbers()
    inputs = [value.name for value in model.graph.inputs]
    feeds = batches(8, 1, 8, 8, name=inputs[0])
    made = quantized(model, measured(model, feeds, ranges))
    found = {weight.name: weight for weight in find_weights(made).prunable}
    assert found.keys() == dense.keys()
    for name, weight in found.items():
        assert weight.tensor.dtype == ir.DataType.INT8
        zeros = dense[name] == 0
        assert zeros.any()
        assert not weight.numbers()[zeros].any()
        assert np.abs(weight.numbers() - dense[name]).max() < np.abs(dense[name]).max() / 100
    assert not any(node.op_type in ("Conv", "Gemm", "MatMul") for node in made.graph)
    assert near(run(model, feeds[0]), run(made, feeds[0])) < 0.01
    assert all(not weight.quantized for weight in find_weights(model).prunable)


def test_scales_are_of_output_channels():
    weight = normal(3, 8) * np.array([[0.01], [1.0], [100.0]], np.float32)
    model = model_of(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        [floats("x", "N", 8)],
        [floats("y", "N", 3)],
        {"w": weight},
    )
    ours = ir.from_proto(model)
    made = quantized(ours, measured(ours, batches(16, 8), "minmax"))
    numbers = find_weights(made).prunable[0].numbers()
    largest = np.abs(weight).max(1, keepdims=True)
    assert (np.abs(numbers - weight) <= largest / 254 * 1.001).all()


def test_nodes_without_names_and_weights_of_constant_nodes_are_quantized():
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(normal(8, 4)))
    model = model_of(
        [
            constant,
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Relu", ["m"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], ["y"]),
        ],
        [floats("x", "N", 8)],
        [floats("y", "N", 4)],
        {"v": normal(4, 4)},
    )
    for node in model.graph.node:
        node.name = ""
    ours = ir.from_proto(model)
    last = list(ours.graph)[-1]
    made = quantized(ours, measured(ours, batches(8, 8), "minmax"), excluded=[last])
    kinds = {weight.name: weight.quantized for weight in find_weights(made).prunable}
    assert kinds == {"w": True, "v": False}


def test_weights_without_a_scale_for_each_output_stay_in_floats_between_integers():
    tied = normal(8, 8) * np.geomspace(0.01, 10, 8, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("MatMul", ["a", "tied"], ["b"]),
        helper.make_node("Gemm", ["b", "tied"], ["c"], transB=1),
        helper.make_node("Reshape", ["c", "shape"], ["d"]),
        helper.make_node("MatMul", ["d", "stacked"], ["y"]),
    ]
    constants = {
        "first": normal(8, 8),
        "tied": tied,
        "stacked": normal(2, 8, 3),
        "shape": np.array([2, -1, 8]),
    }
    model = ir.from_proto(model_of(nodes, [floats("x", 16, 8)], [floats("y", 2, 8, 3)], constants))
    feeds = batches(16, 8)
    for form, integers in ((QOPERATOR, ["first"]), (QDQ, ["first", "tied", "stacked"])):
        made = quantized(model, measured(model, feeds, "minmax"), Form(form))
        assert [weight.name for weight in find_weights(made).prunable if weight.quantized] == integers
        assert near(run(model, feeds[0]), run(made, feeds[0])) < 0.01


CALIBRATION = {"x": normal(64, 8)}


def test_a_job_quantizes_what_it_pruned_and_says_so():
    result = onnxprune.prune(
        mlp(), rate=0.5, calibration_data=CALIBRATION, criterion="magnitude", quantize="int8"
    )
    weights = find_weights(ir.from_proto(result.model)).prunable
    assert all(weight.quantized for weight in weights)
    assert any(note.startswith("Quantized to int8: ") for note in result.report.notes)
    assert result.report.settings["quantize"] == "int8"
    kept = {weight.name: weight.nonzero() for weight in weights}
    assert {layer.name: layer.kept for layer in result.report.layers} == kept
    assert result.report.evaluation["outputs"][0]["cosine"] > 0.5
    plain = onnxprune.prune(mlp(), rate=0.5, format="dense", remove_dead=True)
    feeds = {"x": normal(64, 8, seed=1)}
    assert near(run(plain.model, feeds), run(result.model, feeds)) < 0.01


def test_batch_normalization_goes_into_weights_before():
    names = ("s", "b", "m", "v")
    model = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
            helper.make_node("BatchNormalization", ["c", *names], ["y"], "norm"),
        ],
        [floats("x", "N", 3, 6, 6)],
        [floats("y", "N", 8, 4, 4)],
        {"w": normal(8, 3, 3, 3), **{name: np.abs(normal(8, seed=i)) + 0.5 for i, name in enumerate(names)}},
    )
    data = {"x": normal(32, 3, 6, 6)}
    result = onnxprune.prune(
        model, rate=0.3, calibration_data=data, criterion="magnitude", quantize="int8", format="dense"
    )
    assert [node.op_type for node in result.model.graph.node] == [
        "QuantizeLinear",
        "QLinearConv",
        "DequantizeLinear",
    ]
    floating = onnxprune.prune(model, rate=0.3, format="dense")
    assert near(run(floating.model, data), run(result.model, data)) < 0.01


def test_convolutions_say_only_what_is_no_default():
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        auto_pad="NOTSET",
        dilations=[1, 2],
        group=1,
        pads=[0] * 4,
        strides=[1, 1],
        kernel_shape=[3, 3],
    )
    model = ir.from_proto(
        model_of([node], [floats("x", "N", 2, 8, 8)], [floats("y", "N", 4, 6, 4)], {"w": normal(4, 2, 3, 3)})
    )
    feeds = batches(8, 2, 8, 8)
    made = quantized(model, measured(model, feeds, "minmax"))
    (convolution,) = (node for node in made.graph if node.op_type == "QLinearConv")
    assert set(convolution.attributes) == {"dilations", "kernel_shape"}
    assert near(run(model, feeds[0]), run(made, feeds[0])) < 0.01


@pytest.mark.parametrize("form", ["qoperator", "qdq"])
def test_a_sum_of_two_is_added_in_integers(form):
    """The residual additions of networks that Caffe2 exported: onnxruntime's quantizer knows Add alone."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Sum", ["c", "x"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    model = ir.from_proto(
        model_of(nodes, [floats("x", "N", 4, 8, 8)], [floats("y", "N", 4, 8, 8)], {"w": normal(4, 4, 3, 3)})
    )
    feeds = batches(8, 4, 8, 8)
    made = quantized(model, measured(model, feeds, "minmax"), Form(form))
    assert [node.op_type for node in made.graph if node.op_type in ("Add", "Sum", "QLinearAdd")] == [
        {"qoperator": "QLinearAdd", "qdq": "Add"}[form]
    ]
    assert [node.op_type for node in model.graph] == ["Conv", "Sum", "Relu"]
    assert near(run(model, feeds[0]), run(made, feeds[0])) < 0.01


def test_excluded_weights_stay_in_floats_and_ranges_can_be_given():
    result = onnxprune.prune(
        cnn(),
        rate=0.3,
        calibration_data={"x": normal(16, 1, 8, 8)},
        quantize="int8",
        quantize_ranges="minmax",
        quantize_exclude="conv1*",
    )
    kinds = {weight.name: weight.quantized for weight in find_weights(ir.from_proto(result.model)).prunable}
    assert kinds
    assert [name for name, whole in kinds.items() if not whole] == ["conv1.weight"]
    assert any("--quantize-ranges minmax" in note for note in result.report.notes)


@pytest.mark.parametrize("spread", [1, 1000])
def test_a_layer_that_loses_much_stays_in_floats(spread):
    first = normal(8, 8)
    first[:, 0] /= spread
    model = model_of(
        [
            helper.make_node("Gemm", ["x", "first"], ["a"], "one", transB=1),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Gemm", ["b", "second"], ["y"], "two", transB=1),
        ],
        [floats("x", "N", 8)],
        [floats("y", "N", 4)],
        {"first": first, "second": normal(4, 8, seed=1)},
    )
    # One byte for numbers to a thousand leaves nothing of those to one.
    data = {"x": normal(64, 8) * np.array([spread] + [1] * 7, np.float32)}
    result = onnxprune.prune(model, rate=0, calibration_data=data, quantize="int8")
    kinds = {weight.name: weight.quantized for weight in find_weights(ir.from_proto(result.model)).prunable}
    assert kinds == {"first": spread == 1, "second": True}
    assert any("stay in floats: first." in note for note in result.report.notes) == (spread > 1)
    assert near(run(model, data), run(result.model, data)) < 0.01


@pytest.mark.parametrize("form", [QOPERATOR, QDQ])
def test_the_only_layer_is_quantized_and_the_summary_says_what_it_loses(form):
    weight = normal(64, 64)
    weight[0] *= 1000
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "only")],
        [floats("x", "N", 64)],
        [floats("y", "N", 64)],
        {"w": weight},
    )
    data = {"x": normal(64, 64) * np.array([1e-3] + [1] * 63, np.float32)}
    result = onnxprune.prune(
        model, rate=0, calibration_data=data, quantize="int8", quantize_form=form, format="dense"
    )
    assert [each.quantized for each in find_weights(ir.from_proto(result.model)).prunable] == [True]
    assert result.report.pruned.bytes < result.report.baseline.bytes / 2
    (note,) = (note for note in result.report.notes if note.startswith("Quantized to int8: 1 of 1 weights"))
    lost = float(note.split("a relative squared error of ")[1].split(":")[0])
    outputs = [run(each, data).astype(np.float64) for each in (model, result.model)]
    assert lost == pytest.approx(((outputs[1] - outputs[0]) ** 2).sum() / (outputs[0] ** 2).sum(), rel=0.2)


def test_older_opsets_are_raised():
    model = model_of(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", transB=1)],
        [floats("x", "N", 8)],
        [floats("y", "N", 4)],
        {"w": normal(4, 8), "b": normal(4)},
    )
    model.opset_import[0].version = 9
    result = onnxprune.prune(model, rate=0.3, calibration_data=CALIBRATION, quantize="int8")
    assert find_weights(ir.from_proto(result.model)).prunable[0].quantized
    assert result.model.opset_import[0].version == 13


def test_refusals():
    with pytest.raises(SettingError, match="--quantize measures the ranges of activations on inputs"):
        onnxprune.prune(mlp(), rate=0.5, quantize="int8")
    with pytest.raises(SettingError, match="remove --values"):
        onnxprune.prune(mlp(), rate=0.5, quantize="int8", values="fp16", calibration_data=CALIBRATION)
    with pytest.raises(SettingError, match="cannot be combined with --quantize"):
        onnxprune.prune(mlp(), bytes="10k", quantize="int8", calibration_data=CALIBRATION)
    with pytest.raises(SettingError, match="--quantize-epochs needs --quantize int8"):
        onnxprune.prune(mlp(), rate=0.5, quantize_epochs=1, calibration_data=CALIBRATION)
    with pytest.raises(SettingError, match="--quantize-epochs needs --data"):
        onnxprune.prune(mlp(), rate=0.5, quantize="int8", quantize_epochs=1, calibration_data=CALIBRATION)
    with pytest.raises(SettingError, match="--quantize-exclude needs --quantize int8"):
        onnxprune.prune(mlp(), rate=0.5, quantize_exclude="fc1", calibration_data=CALIBRATION)
    once = onnxprune.prune(mlp(), rate=0.5, quantize="int8", calibration_data=CALIBRATION)
    stages: list[str] = []
    with pytest.raises(ModelFileError, match="is quantized already: prune it without --quantize"):
        onnxprune.prune(
            once.model,
            None,
            lambda stage, fraction: stages.append(stage),
            rate=0.6,
            quantize="int8",
            calibration_data=CALIBRATION,
        )
    assert set(stages) <= {"load"}
    with pytest.raises(NothingToPruneError, match=r"nothing of .* can be quantized"):
        onnxprune.prune(mlp(), rate=0.5, quantize="int8", quantize_exclude="*", calibration_data=CALIBRATION)


@pytest.mark.parametrize("ranges", ["percentile", "auto"])
def test_samples_that_are_no_whole_batches_are_measured_too(ranges):
    given = {"x": normal(36, 8)}
    result = onnxprune.prune(
        mlp(),
        rate=0.3,
        calibration_data=given,
        criterion="magnitude",
        quantize="int8",
        quantize_ranges=ranges,
        format="dense",
    )
    floating = onnxprune.prune(mlp(), rate=0.3, format="dense")
    assert near(run(floating.model, given), run(result.model, given)) < 0.01


def body(name, *nodes):
    return helper.make_graph(nodes, name, [], [floats(name, "N", 8)])


@pytest.mark.parametrize("read", ["r", "h"])
def test_what_the_body_of_an_if_reads_is_computed_before_it_and_stays(read):
    inner = [body(name, helper.make_node("MatMul", [read, "w2"], [name])) for name in ("ti", "ei")]
    branches = [
        body("t", helper.make_node("If", ["yes"], ["t"], then_branch=inner[0], else_branch=inner[1])),
        body("e", helper.make_node("MatMul", [read, "w3"], ["e"])),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("ReduceL1", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["yes"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("If", ["yes"], ["z"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("MatMul", ["z", "w4"], ["y"]),
    ]
    weights = {f"w{number}": normal(8, 8, seed=number) for number in (1, 2, 3, 4)}
    constants = {**weights, "zero": np.zeros((), np.float32)}
    model = ir.from_proto(model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 8)], constants))
    feeds = batches(4, 8)
    for form in (Form("qdq"), Form("qoperator"), Form("qoperator", True)):
        made = ir.to_proto(quantized(model, measured(model, feeds, "minmax"), form))
        onnx.checker.check_model(made, full_check=True)
        assert [output.name for output in made.graph.output] == ["y"]
        kinds = {weight.name: weight.quantized for weight in find_weights(ir.from_proto(made)).prunable}
        assert kinds == {"w1": True, "w2": False, "w3": False, "w4": True}
        assert near(run(model, feeds[0]), run(made, feeds[0])) < 0.01


@pytest.mark.parametrize("form", [Form("qdq"), Form("qoperator")])
def test_an_output_that_an_activation_reads_keeps_its_range(form):
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    weights = {f"w{number}": normal(8, 8, seed=number) for number in (1, 2)}
    outputs = [floats(name, "N", 8) for name in ("h", "y")]
    model = ir.from_proto(model_of(nodes, [floats("x", "N", 8)], outputs, weights))
    feeds = batches(4, 8)
    made = quantized(model, measured(model, feeds, "minmax"), form)
    # The first output is below zero too.
    assert near(run(model, feeds[0]), run(made, feeds[0])) < 0.01


def test_an_infinite_bias_is_named_before_any_work():
    model = mlp()
    (bias,) = (each for each in model.graph.initializer if each.name == "fc2.bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([-np.inf, 0, 0, 0], np.float32), "fc2.bias"))
    with pytest.raises(
        ModelFileError, match=r"'fc2.bias' of .* not finite.*replace it by a finite one"
    ) as refusal:
        onnxprune.prune(model, rate=0.5, quantize="int8", data=CALIBRATION, epochs=1)
    assert "onnxruntime cannot" not in str(refusal.value)
    assert onnxprune.prune(model, rate=0.5, calibration_data=CALIBRATION, effort="fast").report.layers


def test_weights_of_other_floats_are_refused_with_a_way_on():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    info = helper.make_tensor_value_info
    sides = [info(name, onnx.TensorProto.FLOAT16, ["N", size]) for name, size in (("x", 8), ("y", 4))]
    model = model_of(nodes, sides[:1], sides[1:], {"w": normal(8, 4).astype(np.float16)})
    data = {"x": normal(20, 8).astype(np.float16)}
    with pytest.raises(
        ModelFileError, match=r"FLOAT16.*convert it to float32 first, or give --quantize none"
    ):
        onnxprune.prune(model, rate=0.5, quantize="int8", calibration_data=data, effort="fast")

"""Equalized channels: the same function, the same zeros, and ranges that are more alike."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

import onnxprune
from onnxprune.data.request import Request
from onnxprune.data.sources import load_data
from onnxprune.data.specs import input_specs
from onnxprune.job.quantizing.layers import correct_biases
from onnxprune.job.quantizing.outputs import Inputs
from onnxprune.model.constants import constant_tensor
from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.model.weights import find_weights
from onnxprune.quantization.equalization import MARGIN, equalize, regions
from onnxprune.quantization.ranges import measured
from onnxprune.quantization.static import quantized, simulated
from tests.builders import floats, model_of, normal

SPREAD = np.geomspace(0.01, 10, 8).astype(np.float32)


def run(model, x, names=None):
    return ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(names, {"x": x})[0]


def conv(name, x, y, **attributes):
    return helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [y], name, **attributes)


def layer(name, out, into, size=3):
    return {f"{name}.w": normal(out, into, size, size), f"{name}.b": normal(out)}


def uneven(act="Relu", residual=False, ends=()):
    """Conv -> act -> depthwise Conv -> act -> Conv, the channels between them of sizes from 0.01 to 10.

    `ends`: further inputs of the activation, by their names.
    """
    first, depthwise, last = layer("one", 8, 3), layer("two", 8, 1), layer("three", 4, 8, 1)
    first["one.w"] *= SPREAD[:, None, None, None]
    first["one.b"] *= SPREAD
    depthwise["two.w"] /= SPREAD[:, None, None, None]
    nodes = [
        conv("one", "x", "a", pads=[1] * 4),
        helper.make_node(act, ["a", *dict(ends)], ["b"]),
        conv("two", "b", "c", pads=[1] * 4, group=8),
        helper.make_node(act, ["c", *dict(ends)], ["d"]),
    ]
    if residual:
        nodes.append(helper.make_node("Add", ["b", "d"], ["e"]))
    nodes.append(conv("three", "e" if residual else "d", "y"))
    constants = first | depthwise | last | dict(ends)
    return ir.from_proto(model_of(nodes, [floats("x", "N", 3, 8, 8)], [floats("y", "N", 4, 8, 8)], constants))


def found(model):
    return regions(model, infer_shapes(model, {"x": (1, 3, 8, 8)}))


@pytest.mark.parametrize(("residual", "count"), [(False, 2), (True, 1)])
def test_scaled_channels_leave_the_function_and_its_zeros(residual, count):
    model, x = uneven(residual=residual), normal(4, 3, 8, 8)
    for weight in find_weights(model).prunable:
        weight.prune((np.arange(weight.size) % 3 == 0).reshape(weight.shape))
    zeros = {weight.name: weight.numbers() == 0 for weight in find_weights(model).prunable}
    before, values = run(model, x), run_all(model, x)
    places = found(model)
    assert len(places) == count
    for region in places:
        assert equalize(region, {v: np.abs(values[v.name]).max((0, 2, 3)) for v in region.values})
    np.testing.assert_allclose(run(model, x), before, rtol=1e-3, atol=1e-4)
    for weight in find_weights(model).prunable:
        np.testing.assert_array_equal(weight.numbers() == 0, zeros[weight.name])
    after = run_all(model, x)
    ranges = [np.abs(each["b"]).max((0, 2, 3)) for each in (values, after)]
    spread = [each.max() / each.min() for each in ranges]
    assert spread[1] < 0.5 * spread[0]


def run_all(model, x):
    copy = model.clone()
    names = {output.name: output for node in copy.graph for output in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(names.values())
    session = ort.InferenceSession(ir.to_proto(copy).SerializeToString())
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def test_what_clips_or_ends_the_graph_is_not_scaled():
    assert not found(uneven(act="Sigmoid"))
    model = uneven()
    model.graph.outputs.append(next(node for node in model.graph if node.op_type == "Relu").outputs[0])
    assert len(found(model)) == 1


def test_a_shared_weight_is_not_scaled():
    nodes = [conv("one", "x", "a"), helper.make_node("Relu", ["a"], ["b"]), conv("one", "b", "y")]
    model = model_of(nodes, [floats("x", "N", 3, 8, 8)], [floats("y", "N", 3, 4, 4)], layer("one", 3, 3))
    assert not found(ir.from_proto(model))


def test_a_job_equalizes_and_corrects_where_that_brings_outputs_nearer():
    model = ir.to_proto(uneven())
    data = {"x": normal(96, 3, 8, 8)}
    result = onnxprune.prune(model, rate=0, calibration_data=data, quantize="int8", format="dense")
    notes = " ".join(result.report.notes)
    assert "Channels of 2 places were equalized" in notes
    x = normal(32, 3, 8, 8, seed=7)
    plain = ir.from_proto(model)
    before = quantized(plain, measured(plain, [data], "minmax"))
    whole = run(plain, x)
    errors = [
        np.square(run(each, x) - whole).sum() / np.square(whole).sum()
        for each in (before, ir.from_proto(result.model))
    ]
    assert errors[1] < 0.5 * errors[0]


def test_channels_behind_clip_grow_no_further_than_it_lets_them():
    limit = 6.0
    model = uneven("Clip", ends={"low": np.float32(0), "high": np.float32(limit)})
    x = normal(4, 3, 8, 8)
    before, values = run(model, x), run_all(model, x)
    places = found(model)
    assert len(places) == 2
    ranges = {value: np.abs(values[value.name]).max((0, 2, 3)) for each in places for value in each.values}
    # Almost all channels of the second are clipped.
    assert [equalize(region, ranges) for region in places] == [True, False]
    np.testing.assert_allclose(run(model, x), before, rtol=1e-3, atol=1e-3)
    was, now = (each["b"].max((0, 2, 3)) for each in (values, run_all(model, x)))
    # A channel that is clipped, or might be, stays.
    near = was > limit / MARGIN
    assert near.any() and (was[~near] > 0).any()
    np.testing.assert_allclose(now[near], was[near], rtol=1e-3)
    assert now[~near].max() <= limit / MARGIN * 1.001
    assert (now[~near] > was[~near])[was[~near] > 0].all()


def test_biases_are_corrected_by_the_mean_error_of_their_own_layer():
    weight = normal(4, 16) * 0.01
    weight[:, 0] = 1
    nodes = [
        helper.make_node("Gemm", ["x", "one", "b"], ["h"], "one", transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "two", "c"], ["y"], "two", transB=1),
    ]
    constants = {"one": weight, "b": normal(4) + 10, "two": normal(4, 4), "c": normal(4)}
    model = ir.from_proto(model_of(nodes, [floats("x", "N", 16)], [floats("y", "N", 4)], constants))
    # Inputs of one sign: what rounding takes from small weights does not cancel out.
    x = np.abs(normal(64, 16)) + 1
    whole, data = run(model, x), Inputs(load_data({"x": x}, Request(input_specs(model))))
    ranges = measured(model, [{"x": x}], "minmax")
    before = run(quantized(model, ranges), x)
    assert correct_biases(model, simulated(model, ranges), data)
    after = run(quantized(model, ranges), x)
    errors = [np.abs((each - whole).mean(0)).max() for each in (before, after)]
    assert errors[1] < 0.3 * errors[0]
    assert not np.array_equal(constant_tensor(model.graph.initializers["b"]).numpy(), constants["b"])

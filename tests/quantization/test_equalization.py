"""Equalized channels: the same function, the same zeros, and ranges that are more alike."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

import onnxprune
from onnxprune.model.shapes import infer_shapes
from onnxprune.model.weights import find_weights
from onnxprune.quantization.equalization import equalize, regions
from onnxprune.quantization.ranges import measured
from onnxprune.quantization.static import quantized
from tests.builders import floats, model_of, normal

SPREAD = np.geomspace(0.01, 10, 8).astype(np.float32)


def run(model, x, names=None):
    return ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(names, {"x": x})[0]


def conv(name, x, y, **attributes):
    return helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [y], name, **attributes)


def layer(name, out, into, size=3):
    return {f"{name}.w": normal(out, into, size, size), f"{name}.b": normal(out)}


def uneven(act="Relu", residual=False):
    """Conv -> act -> depthwise Conv -> act -> Conv, the channels between them of sizes from 0.01 to 10."""
    first, depthwise, last = layer("one", 8, 3), layer("two", 8, 1), layer("three", 4, 8, 1)
    first["one.w"] *= SPREAD[:, None, None, None]
    first["one.b"] *= SPREAD
    depthwise["two.w"] /= SPREAD[:, None, None, None]
    nodes = [
        conv("one", "x", "a", pads=[1] * 4),
        helper.make_node(act, ["a"], ["b"]),
        conv("two", "b", "c", pads=[1] * 4, group=8),
        helper.make_node(act, ["c"], ["d"]),
    ]
    if residual:
        nodes.append(helper.make_node("Add", ["b", "d"], ["e"]))
    nodes.append(conv("three", "e" if residual else "d", "y"))
    constants = first | depthwise | last
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
    assert "Channels were equalized at 2 places" in notes
    x = normal(32, 3, 8, 8, seed=7)
    plain = ir.from_proto(model)
    before = quantized(plain, measured(plain, [data], "minmax"))
    whole = run(plain, x)
    errors = [
        np.square(run(each, x) - whole).sum() / np.square(whole).sum()
        for each in (before, ir.from_proto(result.model))
    ]
    assert errors[1] < 0.5 * errors[0]

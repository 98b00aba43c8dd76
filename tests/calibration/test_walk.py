import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper

from onnxprune.calibration.moments import collect
from onnxprune.calibration.walk import MODELS, WALK_BYTES, affordable, walk
from onnxprune.data.axes import BatchAxes
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.padding import Padding
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constants
from onnxprune.model.weights import find_weights
from tests.builders import cnn, floats, model_of, normal


def taps(proto: onnx.ModelProto, names: list[str], x: np.ndarray) -> list[np.ndarray]:
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return ort.InferenceSession(proto.SerializeToString()).run(names, {"x": x})


def test_each_layer_is_visited_with_what_it_reads_in_the_dense_and_the_pruned_model():
    proto = cnn()
    model = ir.from_proto(proto)
    weights = find_weights(model).prunable
    dense = {value: value.const_value for value in constants(model)}
    x = np.concatenate([normal(20, 1, 8, 8), normal(20, 1, 8, 8, seed=1)])
    read = {}
    for visit in walk(model, dense, Batch({"x": x}), {weight.uses[0].node for weight in weights}):
        pairs = visit.pairs(visit.node.inputs[0])
        read[visit.node.inputs[0].name] = [np.concatenate(parts) for parts in zip(*pairs, strict=True)]
        for weight in weights:
            if weight.uses[0].node is visit.node:
                weight.assign(weight.array() * (np.abs(weight.array()) > 0.7))
    names = ["c", "e"]
    for which, whole in enumerate((proto, ir.to_proto(model))):
        for name, expected in zip(names, taps(whole, names, x), strict=True):
            np.testing.assert_allclose(read[name][which], expected, rtol=1e-4, atol=1e-4)


def test_a_walk_passes_bodies_constant_nodes_and_values_that_skip_layers():
    branch = [
        helper.make_graph([helper.make_node(op, ["h"], [f"b{op}"])], op, [], [floats(f"b{op}", None, None)])
        for op in ("Relu", "Neg")
    ]
    proto = model_of(
        [
            helper.make_node("Constant", [], ["w1"], value=onnx.numpy_helper.from_array(normal(8, 8), "w1")),
            helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
            helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
            helper.make_node("Greater", ["s", "zero"], ["yes"]),
            helper.make_node("If", ["yes"], ["i"], then_branch=branch[0], else_branch=branch[1]),
            helper.make_node("MatMul", ["i", "w2"], ["k"], "second"),
            helper.make_node("Add", ["k", "h"], ["y"]),
        ],
        [floats("x", "N", 8)],
        [floats("y", "N", 8)],
        {"w2": normal(8, 8, seed=1), "zero": np.zeros((), np.float32)},
    )
    model = ir.from_proto(proto)
    weights = {weight.uses[0].node: weight for weight in find_weights(model).prunable}
    x = normal(16, 8)
    for visit in walk(model, {}, Batch({"x": x}), weights.keys()):
        blocks = Blocks.of(weights[visit.node])
        moments = collect(blocks, visit.pairs(blocks.data), 0)
        (expected,) = taps(proto, [blocks.data.name], x) if blocks.data.name != "x" else (x,)
        np.testing.assert_allclose(moments.whole()[0][0], expected.T @ expected / 16, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(moments.dense_mean[0], expected.mean(0), rtol=1e-4, atol=1e-5)


def test_a_wide_graph_takes_fewer_samples():
    data = Dataset.of({"x": np.zeros((10, 1, 8, 8), np.float32)}, None, "x")
    assert affordable(ir.from_proto(cnn()), data, 7) == 7
    wide = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Conv", ["r", "v"], ["d"]),
            helper.make_node("GlobalAveragePool", ["d"], ["y"]),
        ],
        [floats("x", "N", 1, 2000, 2000)],
        [floats("y", "N", 1, 1, 1)],
        {"w": normal(64, 1, 1, 1), "v": normal(1, 64, 1, 1)},
    )
    images = Dataset.of({"x": np.broadcast_to(np.float32(0), (10, 1, 2000, 2000))}, None, "x")
    assert affordable(ir.from_proto(wide), images, 7) == WALK_BYTES // (MODELS * 4 * 64 * 2000**2) == 2


def test_sequences_are_run_beside_those_of_their_length_and_without_padding():
    proto = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [floats("x", "N", "T", 8)],
        [floats("y", "N", "T", 8)],
        {"w": normal(8, 8)},
    )
    model = ir.from_proto(proto)
    lengths = np.where(np.arange(64) % 2, 3, 40)
    there = np.arange(40) < lengths[:, None]
    axes = BatchAxes(padding=Padding("x", {"x": 1}))
    data = Batch({"x": normal(64, 40, 8) * there[..., None]}, axes=axes)
    [weight] = find_weights(model).prunable
    [visit] = walk(model, None, data, {weight.uses[0].node})
    shapes = [dense.shape for dense, _ in visit.pairs(weight.uses[0].node.inputs[0])]
    assert shapes == [(16, 3, 8)] * 2 + [(16, 40, 8)] * 2

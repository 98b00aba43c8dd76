"""Operators between sparse nodes of integers: which run by kernels, and that they come back."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from onnxprune.model.weights import find_weights
from onnxprune.quantization.ranges import measured
from onnxprune.quantization.static import quantized
from onnxprune.sparse.between import BETWEEN, accompany
from onnxprune.sparse.functions import DOMAIN
from onnxprune.sparse.placement import place, quantized_nodes
from onnxprune.sparse.restore import from_ops
from onnxprune.sparse.rewrite import to_ops
from tests.builders import floats, model_of, normal
from tests.runtime.sessions import kernel_session, needs_kernels

MICROSOFT = "com.microsoft"


def sparse_weight(*shape, seed=0):
    weight = normal(*shape, seed=seed)
    return np.where(np.abs(weight) > 1.6, weight, 0).astype(np.float32)


def residual_network() -> onnx.ModelProto:
    """Conv, MaxPool, a residual block, and Softmax over channels of the last axis."""
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], "stem", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("MaxPool", ["r0"], ["p"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Conv", ["p", "w1"], ["c1"], "body", pads=[1] * 4),
        helper.make_node("Add", ["c1", "p"], ["s"], "residual"),
        helper.make_node("Conv", ["s", "w2"], ["c2"], "head"),
        helper.make_node("Softmax", ["c2"], ["y"], "softmax", axis=-1),
    ]
    weights = {
        "w0": sparse_weight(32, 16, 3, 3),
        "w1": sparse_weight(32, 32, 3, 3, seed=1),
        "w2": sparse_weight(64, 32, 1, 1, seed=2),
    }
    return model_of(nodes, [floats("x", 1, 16, 16, 16)], [floats("y", 1, 64, 8, 8)], weights)


@pytest.fixture(name="dense")
def dense_model() -> ir.Model:
    model = ir.from_proto(residual_network())
    return quantized(model, measured(model, [{"x": normal(1, 16, 16, 16)}], "minmax"))


@pytest.fixture(name="sparse")
def sparse_model(dense) -> ir.Model:
    model = dense.clone()
    to_ops(model, find_weights(model).all)
    return model


def domains(model: ir.Model) -> dict[str, str]:
    return {node.op_type: node.domain for node in model.graph if node.op_type in BETWEEN}


def run(model: ir.Model, kernels: bool) -> np.ndarray:
    proto = ir.to_proto(model)
    feeds = {"x": normal(1, 16, 16, 16, seed=5)}
    if kernels:
        return kernel_session(proto, 1).run(None, feeds)[0]
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def test_what_stands_between_kernels_runs_by_kernels(sparse):
    assert domains(sparse) == dict.fromkeys(["MaxPool", "QLinearAdd", "QLinearSoftmax"], DOMAIN)


def test_the_file_is_valid_and_stock_onnxruntime_gives_the_same_bits(dense, sparse):
    onnx.checker.check_model(ir.to_proto(sparse), full_check=True)
    assert np.array_equal(run(sparse, kernels=False), run(dense, kernels=False))


@needs_kernels
def test_kernels_give_the_same_bits(dense, sparse):
    assert np.array_equal(run(sparse, kernels=True), run(dense, kernels=False))


def test_they_come_back_with_the_weights(dense, sparse):
    from_ops(sparse)
    assert ir.to_proto(sparse).graph.node == ir.to_proto(dense).graph.node
    assert not sparse.functions
    assert DOMAIN not in sparse.opset_imports


@pytest.mark.parametrize(
    ("dense_node", "own"),
    [
        ("stem_quant", {"QLinearAdd": DOMAIN, "MaxPool": "", "QLinearSoftmax": DOMAIN}),
        ("head_quant", {"QLinearAdd": MICROSOFT, "MaxPool": DOMAIN, "QLinearSoftmax": MICROSOFT}),
    ],
)
def test_what_reads_or_feeds_a_dense_convolution_stays_as_it_is(dense, sparse, dense_node, own):
    nodes = quantized_nodes(sparse)
    assert dense_node in [node.name for node in nodes]
    place(sparse, [node for node in nodes if node.name != dense_node])
    assert domains(sparse) == own
    used = {name for domain, name, _ in sparse.functions if domain == DOMAIN and name in BETWEEN}
    assert used == {name for name, domain in own.items() if domain == DOMAIN}
    assert np.array_equal(run(sparse, kernels=False), run(dense, kernels=False))


def test_nothing_changes_where_no_node_runs_by_a_kernel(sparse):
    place(sparse, [])
    assert domains(sparse) == {"MaxPool": "", "QLinearAdd": MICROSOFT, "QLinearSoftmax": MICROSOFT}
    assert not {name for _, name, _ in sparse.functions} & {*BETWEEN}


@pytest.mark.parametrize(
    "attribute",
    [
        ir.AttrInt64("ceil_mode", 1),
        ir.AttrString("auto_pad", "SAME_UPPER"),
        ir.AttrInt64s("dilations", [2, 2]),
        ir.AttrInt64s("kernel_shape", [3]),
        ir.AttrInt64s("pads", [3, 1, 1, 1]),
    ],
)
def test_a_pool_that_kernels_do_not_compute_stays(sparse, attribute):
    pool = next(node for node in sparse.graph if node.op_type == "MaxPool")
    pool.attributes[attribute.name] = attribute
    accompany(sparse)
    assert domains(sparse)["MaxPool"] == ""


def test_a_pool_of_floats_stays(sparse):
    pool = next(node for node in sparse.graph if node.op_type == "MaxPool")
    pool.replace_input_with(0, sparse.graph.inputs[0])
    accompany(sparse)
    assert domains(sparse)["MaxPool"] == ""


def test_softmax_of_older_opsets_and_of_int8_stays(sparse):
    softmax = next(node for node in sparse.graph if node.op_type == "QLinearSoftmax")
    softmax.attributes["opset"] = ir.AttrInt64("opset", 12)
    accompany(sparse)
    assert domains(sparse)["QLinearSoftmax"] == MICROSOFT
    softmax.attributes["opset"] = ir.AttrInt64("opset", 13)
    softmax.inputs[4].const_value = ir.tensor(np.int8(0))
    accompany(sparse)
    assert domains(sparse)["QLinearSoftmax"] == MICROSOFT


def test_scales_that_are_computed_stay(sparse):
    add = next(node for node in sparse.graph if node.op_type == "QLinearAdd")
    add.replace_input_with(1, ir.Value(name="computed"))
    accompany(sparse)
    assert domains(sparse)["QLinearAdd"] == MICROSOFT

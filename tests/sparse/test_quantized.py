"""Sparse nodes of 8-bit integers: what they are made of, what stock onnxruntime makes of them, and the way back."""

import json
import re

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune.errors import ModelFileError
from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.model.weights import find_weights
from onnxprune.sparse.blocks import share_of_fours, smallest_blocks
from onnxprune.sparse.coding import code, uncode
from onnxprune.sparse.functions import DENSE_DOMAIN, DOMAIN
from onnxprune.sparse.opening import open_model
from onnxprune.sparse.parts import value_names
from onnxprune.sparse.placement import MOST_FOURS_BY_ROWS, paying_quantized, place
from onnxprune.sparse.quantized import store_quantized
from onnxprune.sparse.quantized_functions import QUANTIZED_OPS
from onnxprune.sparse.rewrite import to_ops
from tests.fuzz.models import written
from tests.sparse.graphs import run, sparse_types
from tests.sparse.test_blocks import sparse_integers

MATRIX, IMAGES = "g (float[N,40] x) => (float[N,32] y)", "g (float[N,12,7,7] x) => (float[N,32,7,7] y)"
CONV = "<pads = [1, 1, 1, 1]>"
START, END = "xq = QuantizeLinear (x, xs, xz)", "y = DequantizeLinear (yq, ys, yz)"
LINEAR = "xq, xs, xz, w, ws, wz, ys, yz"
QDQ = "xd = DequantizeLinear (xq, xs, xz) wd = DequantizeLinear <axis = {axis}> (w, ws, wz)"
BIAS = "bd = DequantizeLinear <axis = 0> (b, bs)"
QUANTIZE = "yq = QuantizeLinear (yd, ys, yz)"

# The operator that a node becomes, its shape, and its nodes.
FORMS = {
    "SparseQLinearConv": ((32, 12, 3, 3), f"yq = QLinearConv {CONV} ({LINEAR}, b)"),
    "SparseQLinearConvNoBias": ((32, 12, 3, 3), f"yq = QLinearConv {CONV} ({LINEAR})"),
    "SparseQLinearMatMul": ((40, 32), f"yq = QLinearMatMul ({LINEAR})"),
    "SparseQGemm": ((40, 32), "yq = com.microsoft.QGemm (xq, xs, xz, w, ws, wz, b, ys, yz)"),
    "SparseQGemmNoBias": ((40, 32), "yq = com.microsoft.QGemm (xq, xs, xz, w, ws, wz, , ys, yz)"),
    "SparseQGemmTransB": (
        (32, 40),
        "yq = com.microsoft.QGemm <transB = 1> (xq, xs, xz, w, ws, wz, b, ys, yz)",
    ),
    "SparseQGemmTransBNoBias": (
        (32, 40),
        "yq = com.microsoft.QGemm <transB = 1> (xq, xs, xz, w, ws, wz, , ys, yz)",
    ),
    "SparseQDQConv": (
        (32, 12, 3, 3),
        f"{QDQ.format(axis=0)} {BIAS} yd = Conv {CONV} (xd, wd, bd) {QUANTIZE}",
    ),
    "SparseQDQConvNoBias": ((32, 12, 3, 3), f"{QDQ.format(axis=0)} yd = Conv {CONV} (xd, wd) {QUANTIZE}"),
    "SparseQDQMatMul": ((40, 32), f"{QDQ.format(axis=1)} yd = MatMul (xd, wd) {QUANTIZE}"),
    "SparseQDQGemm": ((40, 32), f"{QDQ.format(axis=1)} {BIAS} yd = Gemm (xd, wd, bd) {QUANTIZE}"),
    "SparseQDQGemmNoBias": ((40, 32), f"{QDQ.format(axis=1)} yd = Gemm (xd, wd) {QUANTIZE}"),
    "SparseQDQGemmTransB": (
        (32, 40),
        f"{QDQ.format(axis=0)} {BIAS} yd = Gemm <transB = 1> (xd, wd, bd) {QUANTIZE}",
    ),
    "SparseQDQGemmTransBNoBias": (
        (32, 40),
        f"{QDQ.format(axis=0)} yd = Gemm <transB = 1> (xd, wd) {QUANTIZE}",
    ),
}


def model_of(name, density=0.15, x_type=np.uint8, w_type=np.int8, zero=0, channels=True, **changed):
    """The model of a form: x quantized, the node, y dequantized."""
    shape, nodes = FORMS[name]
    outputs = 32 if channels else 1
    scales = np.linspace(0.01, 0.03, outputs, dtype=np.float32)
    x_scale, middle = np.float32(0.02), 0 if x_type == np.int8 else 128
    constants = {
        "w": sparse_integers(shape, density, zero, w_type, seed=3),
        "ws": scales if channels else scales[0],
        "wz": np.full(outputs if channels else (), zero, w_type),
        "xs": x_scale,
        "xz": x_type(middle + 7),
        "ys": np.float32(0.3),
        "yz": x_type(middle - 20),
        "b": np.arange(-16, 16, dtype=np.int32) * 300,
        "bs": np.broadcast_to(x_scale * scales, 32).copy(),
    } | changed
    graph = f"{IMAGES if len(shape) > 2 else MATRIX} {{ {START} {nodes} {END} }}"
    used = {key: value for key, value in constants.items() if any(f"{key}{c}" in graph for c in ",) ")}
    return written(graph, used, opset=17, ir_version=8)


def sparse(model):
    converted = ir.from_proto(model)
    stored = to_ops(converted, find_weights(converted).prunable)
    return ir.to_proto(converted), stored


def x_of(model):
    dims = [dim.dim_value or 3 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(5).standard_normal(dims).astype(np.float32)


def nodes_run(model, x, tmp_path):
    """The operators that stock onnxruntime runs, by its profiler."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": x})
    with open(session.end_profiling()) as file:
        return [event["args"]["op_name"] for event in json.load(file) if "kernel_time" in event["name"]]


@pytest.mark.parametrize("name", FORMS)
def test_stock_onnxruntime_runs_the_same_integer_operators_and_gives_the_same_bits(name, tmp_path):
    dense = model_of(name)
    made, (stored,) = sparse(dense)
    assert stored.format == "ops"
    assert stored.bytes < onnx.numpy_helper.to_array(dense.graph.initializer[0]).nbytes
    assert sparse_types(made.graph) == [name]
    onnx.checker.check_model(made, full_check=True)
    x = x_of(dense)
    expected = run(dense, x=x)[0]
    assert len(np.unique(expected)) > 20
    assert np.array_equal(run(made, x=x)[0], expected)
    ran = nodes_run(made, x, tmp_path)
    assert ran == nodes_run(dense, x, tmp_path)
    assert any(operator in ran for operator in ("QLinearConv", "QLinearMatMul", "QGemm"))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "settings",
    [
        {"x_type": np.int8},
        {"channels": False},
        {"w_type": np.uint8, "zero": 128},
        {"w_type": np.uint8, "zero": 255, "channels": False},
        {"zero": -128, "channels": False},
        {"density": 0.0},
    ],
)
def test_other_types_scales_and_zero_points_give_the_same_bits(name, settings):
    if settings.get("channels", True) and settings.get("zero", 0) and "MatMul" not in name:
        settings = settings | {"channels": False}
    dense = model_of(name, **settings)
    made, (stored,) = sparse(dense)
    assert stored.format == "ops", stored.reason
    x = x_of(dense)
    assert np.array_equal(run(made, x=x)[0], run(dense, x=x)[0])


@pytest.mark.parametrize("name", FORMS)
def test_a_sparse_file_opens_as_the_model_that_it_was_made_of(name):
    dense = model_of(name)
    made, _ = sparse(dense)
    back = ir.to_proto(open_model(made).model)
    assert [node.op_type for node in back.graph.node] == [node.op_type for node in dense.graph.node]
    for old, new in zip(dense.graph.node, back.graph.node, strict=True):
        assert [(a.name, a.i, list(a.ints)) for a in old.attribute if a.name != "axis" or a.i] == [
            (a.name, a.i, list(a.ints)) for a in new.attribute if a.name != "axis" or a.i
        ]
    assert not back.functions
    old, new = ({t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in (dense, back))
    assert old.keys() == new.keys()
    assert all(np.array_equal(old[key], new[key]) and old[key].dtype == new[key].dtype for key in old)
    onnx.checker.check_model(back, full_check=True)
    again, _ = sparse(back)
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in made.graph.node]


def test_zero_points_of_each_output_of_a_product():
    zeros = (np.arange(32) * 5 % 200).astype(np.uint8)
    weight = np.where(sparse_integers((40, 32), 0.15, 0) != 0, np.uint8(200), zeros)
    dense = model_of("SparseQLinearMatMul", w_type=np.uint8, w=weight, wz=zeros)
    made, (stored,) = sparse(dense)
    assert stored.format == "ops"
    x = x_of(dense)
    assert np.array_equal(run(made, x=x)[0], run(dense, x=x)[0])
    back = ir.to_proto(open_model(made).model)
    assert np.array_equal(onnx.numpy_helper.to_array(back.graph.initializer[-1]), weight)


def test_a_weight_of_two_nodes_is_stored_once():
    nodes = (
        "h = QLinearMatMul (xq, xs, xz, w, ws, wz, xs, xz) yq = QLinearMatMul (h, xs, xz, w, ws, wz, ys, yz)"
    )
    constants = {"w": sparse_integers((64, 64), 0.1, 0), "ws": np.float32(0.02), "wz": np.int8(0)}
    ends = {"xs": np.float32(0.02), "xz": np.uint8(128), "ys": np.float32(0.1), "yz": np.uint8(99)}
    dense = written(
        f"g (float[N,64] x) => (float[N,64] y) {{ {START} {nodes} {END} }}", constants | ends, opset=17
    )
    made, (stored,) = sparse(dense)
    assert stored.format == "ops"
    assert sum(tensor.name == "w.coded" for tensor in made.graph.initializer) == 1
    x = x_of(dense)
    assert np.array_equal(run(made, x=x)[0], run(dense, x=x)[0])
    back = ir.to_proto(open_model(made).model)
    assert [node.input[3] for node in back.graph.node if node.op_type == "QLinearMatMul"] == ["w", "w"]


@pytest.mark.parametrize(
    ("name", "old", "new", "changed", "reason"),
    [
        ("SparseQDQMatMul", QUANTIZE, "yq = QuantizeLinear (yd, ys, yz) z = Relu (yd)", {}, "not between"),
        ("SparseQDQMatMul", QUANTIZE, "r = Relu (yd) yq = QuantizeLinear (r, ys, yz)", {}, "not between"),
        ("SparseQDQMatMul", "(w, ws, wz)", "(w, ws, wz) z = Relu (wd)", {}, "Relu node .* reads it too"),
        ("SparseQDQMatMul", "(w, ws, wz)", "(w, ws)", {}, "has no zero point"),
        ("SparseQDQMatMul", "(w, ws, wz)", "(w, ws, wz) z = Cast <to = 1> (w)", {}, "reads it too"),
        (
            "SparseQLinearConv",
            "",
            "",
            {"wz": np.arange(32).astype(np.uint8), "w": np.full((32, 12, 3, 3), 3, np.uint8)},
            "different zero points",
        ),
        ("SparseQLinearMatMul", "xq, xs", "xq, ps", {}, "computed in the graph"),
        ("SparseQGemmNoBias", "QGemm", "QGemm <alpha = 2.0>", {}, "has no sparse form"),
        ("SparseQDQGemm", "(b, bs)", "(b, bs, one)", {"one": np.array(1, np.int32)}, "has a zero point"),
        ("SparseQDQGemm", "", "", {"bs": np.full(32, 0.5, np.float32)}, "bias .* has no sparse form"),
        ("SparseQLinearMatMul", "", "", {"w": sparse_integers((40, 32), 0.9, 0)}, "sparse it takes"),
    ],
)
def test_what_has_no_sparse_form_of_its_own_tells_the_reason(name, old, new, changed, reason):
    model = model_of(name, **changed)
    shape, nodes = FORMS[name]
    graph = f"{IMAGES if len(shape) > 2 else MATRIX} {{ {START} ps = Add (xs, xs) {nodes.replace(old, new)} {END} }}"
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer} | changed
    model = ir.from_proto(written(graph, constants, opset=17, ir_version=8))
    (weight,) = find_weights(model).prunable
    stored = store_quantized(weight, value_names(model), 17)
    assert stored.format == "dense"
    assert re.search(reason, stored.reason or ""), stored.reason


@pytest.mark.parametrize(
    ("density", "rows", "domain"),
    [
        (0.05, 128, DOMAIN),
        (0.05, 8, DOMAIN),
        (0.05, 7, DENSE_DOMAIN),
        (0.02, 1, DOMAIN),
        (0.1, 128, DOMAIN),
        (0.1, 1, DENSE_DOMAIN),
        (0.3, 128, DENSE_DOMAIN),
    ],
)
def test_kernels_take_the_nodes_of_which_enough_is_zero(density, rows, domain):
    model = ir.from_proto(model_of("SparseQLinearMatMul", density=density))
    to_ops(model, find_weights(model).prunable)
    place(model, paying_quantized(model, infer_shapes(model, {"x": (rows, 40)})))
    (node,) = (node for node in model.graph if node.op_type in QUANTIZED_OPS)
    assert node.domain == domain
    assert {identifier[0] for identifier in model.functions if identifier[1].startswith("Sparse")} == {domain}
    weight = sparse_integers((40, 32), density, 0, seed=3)
    share = share_of_fours(smallest_blocks(weight, np.int8(0), 0, True)[0], 0)
    most = [share for least, share in MOST_FOURS_BY_ROWS if rows >= least][-1]
    assert (share <= most) == (domain == DOMAIN)
    proto = ir.to_proto(model)
    x = x_of(proto)
    assert np.array_equal(run(proto, x=x)[0], run(model_of("SparseQLinearMatMul", density=density), x=x)[0])
    assert len(open_model(proto).model.functions) == 0


@pytest.mark.parametrize("pattern", ["none", "1x4"])
@pytest.mark.parametrize("name", ["SparseQLinearConv", "SparseQDQConv"])
def test_pruning_a_quantized_model_writes_it_sparse(name, pattern, tmp_path):
    dense = model_of(name, density=1.0)
    settings = {} if pattern == "none" else {"pattern": pattern}
    result = onnxprune.prune(dense, rate=0.85, remove_dead=False, kernels="all", **settings)
    (layer,) = result.report.layers
    assert sparse_types(result.model.graph) == [name]
    kept = layer.kept / layer.size
    assert layer.bytes_after < layer.bytes * kept * (1.35 if pattern == "1x4" else 2.1) + 64
    whole = onnxprune.prune(dense, rate=0.85, remove_dead=False, format="dense", **settings)
    x = x_of(dense)
    assert np.array_equal(run(result.model, x=x)[0], run(whole.model, x=x)[0])


@pytest.mark.parametrize(
    ("changed", "zeros", "reason"),
    [
        ({"gaps": lambda gaps: gaps * 0}, 1, "gap 0 is 0"),
        ({"shape": lambda shape: -shape}, 1, "negative dimension"),
        ({"shape": lambda shape: shape - 2}, 1, "its last block is at position"),
        ({"shape": lambda shape: shape[:0]}, 1, "its shape \\[\\] has too few axes"),
        ({}, 2, "do not fit"),
    ],
)
def test_a_broken_file_is_refused(changed, zeros, reason):
    made, _ = sparse(model_of("SparseQLinearMatMul"))
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    arrays = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    values, gaps = uncode(arrays["w.coded"], np.dtype(np.int8))
    parts = {"gaps": gaps, "shape": arrays["w.shape"]}
    parts |= {part: change(parts[part]) for part, change in changed.items()}
    broken = {
        "w.coded": code(values, parts["gaps"]),
        "w.shape": parts["shape"],
        "wz": np.zeros(zeros, np.int8),
    }
    for name, array in broken.items():
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(array, name))
    with pytest.raises(ModelFileError, match=f"sparse weight 'w' cannot be decoded.*({reason})"):
        open_model(made)


def test_a_node_that_lacks_inputs_is_refused():
    made, _ = sparse(model_of("SparseQLinearMatMul"))
    node = next(node for node in made.graph.node if node.op_type.startswith("Sparse"))
    del node.input[9:]
    with pytest.raises(ModelFileError, match="lacks inputs"):
        open_model(made)


@pytest.mark.parametrize(("kernel", "domain"), [(1, DENSE_DOMAIN), (3, DOMAIN)])
def test_kernels_among_dense_convolutions_must_save_more_than_transposing_costs(kernel, domain):
    """A depthwise convolution between two: 32 or 288 multiply-adds an output, and two values to transpose."""
    pads = f"<pads = [{', '.join([str(kernel // 2)] * 4)}]>"
    nodes = f"""
        p = QLinearConv {pads} (xq, xs, xz, w, ws, wz, xs, xz)
        q = QLinearConv <group = 32, pads = [1, 1, 1, 1]> (p, xs, xz, d, ws, wz, xs, xz)
        yq = QLinearConv {pads} (q, xs, xz, v, ws, wz, ys, yz)
    """
    constants = {
        "w": sparse_integers((32, 32, kernel, kernel), 0.07, 0, seed=1),
        "v": sparse_integers((32, 32, kernel, kernel), 0.07, 0, seed=2),
        "d": np.ones((32, 1, 3, 3), np.int8),
        "ws": np.float32(0.02),
        "wz": np.int8(0),
        "xs": np.float32(0.02),
        "xz": np.uint8(128),
        "ys": np.float32(0.1),
        "yz": np.uint8(99),
    }
    graph = f"g (float[N,32,9,9] x) => (float[N,32,9,9] y) {{ {START} {nodes} {END} }}"
    dense = written(graph, constants, opset=17, ir_version=8)
    model = ir.from_proto(dense)
    assert [each.format for each in to_ops(model, find_weights(model).prunable)] == ["ops", "dense", "ops"]
    place(model, paying_quantized(model, infer_shapes(model, {"x": (1, 32, 9, 9)})))
    assert [node.domain for node in model.graph if "Conv" in node.op_type] == [domain, "", domain]
    x = x_of(dense)
    assert np.array_equal(run(ir.to_proto(model), x=x)[0], run(dense, x=x)[0])


@pytest.mark.parametrize(
    ("inputs", "window", "domain"),
    [
        (32, "kernel_shape = [3, 3]", DOMAIN),
        (32, "kernel_shape = [2, 2], dilations = [2, 2]", DENSE_DOMAIN),
        (1024, "kernel_shape = [2, 2], dilations = [2, 2]", DOMAIN),
    ],
)
def test_a_convolution_before_a_pool_without_kernel_runs_dense_unless_it_saves_more(inputs, window, domain):
    nodes = f"""
        p = QLinearConv <pads = [1, 1, 1, 1]> (xq, xs, xz, w, ws, wz, xs, xz)
        yq = MaxPool <{window}, pads = [1, 1, 1, 1], strides = [2, 2]> (p)
    """
    constants = {
        "w": sparse_integers((32, inputs, 3, 3), 0.03, 0, seed=1),
        "ws": np.float32(0.02),
        "wz": np.int8(0),
        "xs": np.float32(0.02),
        "xz": np.uint8(128),
    }
    end = "y = DequantizeLinear (yq, xs, xz)"
    graph = f"g (float[N,{inputs},8,8] x) => (float[N,32,4,4] y) {{ {START} {nodes} {end} }}"
    model = ir.from_proto(written(graph, constants, opset=17, ir_version=8))
    to_ops(model, find_weights(model).prunable)
    place(model, paying_quantized(model, infer_shapes(model, {"x": (1, inputs, 8, 8)})))
    assert [node.domain for node in model.graph if "Conv" in node.op_type] == [domain]

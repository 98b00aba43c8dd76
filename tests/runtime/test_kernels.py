import os

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.sessions import (
    assert_close,
    kernel_session,
    needs_kernels,
    run_dense,
    run_kernels,
    sparse_model,
)
from tests.sparse.graphs import dense_array, parse, run, sparse, sparse_array
from tests.sparse.test_rewrite import NODES, weighted_model

pytestmark = needs_kernels

DENSITIES = st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0])
DRAWN = settings(
    max_examples=400 if os.environ.get("ONNXPRUNE_LONG") else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@st.composite
def convolutions(draw):
    """A weight, an input and a bias or none, and attributes of Conv that fit."""
    axes = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = draw(st.integers(1, 5))
    kernel = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    dilations = draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes))
    extents = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    sides = [extent + draw(st.integers(0, 40 if axes == 1 else 8)) for extent in extents]
    strides = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    attributes = {"group": groups, "kernel_shape": kernel, "dilations": dilations, "strides": strides}
    if draw(st.booleans()):
        attributes["pads"] = draw(st.lists(st.integers(0, 3), min_size=2 * axes, max_size=2 * axes))
    elif all(d == 1 and s <= k for d, s, k in zip(dilations, strides, kernel, strict=True)):
        # Where the stride skips input, onnxruntime 1.18 pads by a negative number.
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    outputs = groups * draw(st.integers(1, 20))
    weight = sparse_array(outputs, channels, *kernel, density=draw(DENSITIES), seed=draw(st.integers(0, 9)))
    x = dense_array(draw(st.integers(0, 3)), groups * channels, *sides)
    bias = dense_array(outputs, seed=3) if draw(st.booleans()) else None
    return weight, x, bias, attributes


@DRAWN
@given(convolutions())
def test_convolutions_equal_the_dense_ones(isa, case):
    weight, x, bias, attributes = case
    op_type = "SparseConvNoBias" if bias is None else "SparseConv"
    got = run_kernels(sparse_model(op_type, weight, bias, **attributes), x)
    assert_close(got, run_dense("Conv", weight, x, bias, **attributes))


@pytest.mark.parametrize(
    "side", [(1, 1), (4, 4), (7, 7), (13, 13), (14, 14), (28, 28), (3, 56), (56, 3), (2, 130)]
)
@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        (1, {}),
        (1, {"strides": [2, 2]}),
        (3, {"pads": [1] * 4}),
        (3, {"pads": [1] * 4, "strides": [2, 2]}),
        (3, {"pads": [2] * 4, "dilations": [2, 2]}),
        (3, {"pads": [2] * 4, "dilations": [2, 2], "strides": [2, 2]}),
        (5, {"pads": [0, 4, 4, 0], "strides": [3, 1]}),
    ],
)
@pytest.mark.parametrize("images", [1, 3])
def test_maps_of_any_size_equal_the_dense_ones(isa, side, kernel, attributes, images):
    weight, x = sparse_array(20, 9, kernel, kernel, density=0.2), dense_array(images, 9, *side)
    got = run_kernels(sparse_model("SparseConvNoBias", weight, **attributes), x)
    assert_close(got, run_dense("Conv", weight, x, **attributes))


def in_fours(density: float, *shape: int, broken: bool = False) -> np.ndarray:
    """A weight whose outputs share their places in fours; where `broken`, some of them have a few of their own."""
    weight, kept = dense_array(*shape), sparse_array(-(-shape[0] // 4), *shape[1:], density=density) != 0
    kept = np.repeat(kept, 4, axis=0)[: shape[0]]
    if broken:
        kept ^= np.random.default_rng(5).random(shape) < 0.01
    return np.where(kept, weight, np.float32(0))


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("outputs", [4, 42, 300])
def test_weights_pruned_in_fours_of_outputs_equal_the_dense_ones(isa, outputs, density, broken):
    weight = in_fours(density, outputs, 150, broken=broken)
    for batch in (1, 3, 8, 40, 130):
        x = dense_array(batch, 150)
        got = run_kernels(sparse_model("SparseGemm", weight, transB=1), x)
        assert_close(got, run_dense("Gemm", weight, x, transB=1))
    weight, x = in_fours(density, outputs, 20, 3, 3, broken=broken), dense_array(1, 20, 17, 17)
    got = run_kernels(sparse_model("SparseConvNoBias", weight, pads=[1] * 4), x)
    assert_close(got, run_dense("Conv", weight, x, pads=[1] * 4))


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolutions_equal_the_dense_ones(isa, multiplier):
    weight, x = sparse_array(70 * multiplier, 1, 3, 3, density=0.5), dense_array(2, 70, 15, 15)
    attributes = {"group": 70, "pads": [1] * 4}
    got = run_kernels(sparse_model("SparseConvNoBias", weight, **attributes), x)
    assert_close(got, run_dense("Conv", weight, x, **attributes))


@DRAWN
@given(
    batch=st.sampled_from([0, 1, 2, 3, 7, 8, 17, 130]),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    density=DENSITIES,
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    bias_shape=st.sampled_from([None, "scalar", "row", "flat row", "column", "whole"]),
    scale=st.sampled_from([(1.0, 1.0), (0.5, 2.0)]),
)
def test_gemms_equal_the_dense_ones(
    isa, batch, inputs, outputs, density, trans_a, trans_b, bias_shape, scale
):
    weight = sparse_array(*((outputs, inputs) if trans_b else (inputs, outputs)), density=density)
    x = dense_array(*((inputs, batch) if trans_a else (batch, inputs)))
    shapes = {
        "scalar": (),
        "row": (1, outputs),
        "flat row": (outputs,),
        "column": (batch, 1),
        "whole": (batch, outputs),
    }
    bias = None if bias_shape is None else dense_array(*shapes[bias_shape], seed=3)
    attributes = {"transA": int(trans_a), "transB": int(trans_b), "alpha": scale[0], "beta": scale[1]}
    got = run_kernels(sparse_model("SparseGemm", weight, bias, **attributes), x)
    assert_close(got, run_dense("Gemm", weight, x, bias, **attributes))


@pytest.mark.parametrize("density", [0.05, 0.3])
@pytest.mark.parametrize("x_shape", [(5000,), (1, 5000), (2, 3, 5000), (0, 5000), (2, 2, 20, 5000)])
def test_matmuls_of_more_columns_than_a_block_equal_the_dense_ones(isa, x_shape, density):
    weight, x = sparse_array(5000, 300, density=density), dense_array(*x_shape)
    assert_close(run_kernels(sparse_model("SparseMatMul", weight), x), run_dense("MatMul", weight, x))


@pytest.mark.parametrize("density", [0.05, 0.3])
@pytest.mark.parametrize("rows", [1, 5])
def test_nan_and_infinity_do_not_pass_through_removed_weights(isa, rows, density):
    weight, x = sparse_array(200, 70, density=density), dense_array(rows, 200)
    weight[40:90] = 0
    expected = run_dense("MatMul", weight, x)
    x[:, 40:65], x[:, 65:90] = np.nan, np.inf
    assert_close(run_kernels(sparse_model("SparseMatMul", weight), x), expected)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape"),
    [((4, 3, 32), (4, 32, 16)), ((3, 32), (4, 32, 16)), ((32,), (4, 32, 16)), ((5, 1, 3, 32), (4, 32, 16))],
)
def test_matmuls_broadcast_over_a_weight_of_several_matrices(isa, x_shape, weight_shape):
    weight, x = sparse_array(*weight_shape), dense_array(*x_shape)
    assert_close(run_kernels(sparse_model("SparseMatMul", weight), x), run_dense("MatMul", weight, x))


def test_empty_rows_give_the_bias_alone(isa):
    weight = sparse_array(40, 24, 3, 3)
    weight[5:20] = 0
    x, bias = dense_array(1, 24, 9, 9), dense_array(40, seed=3)
    got = run_kernels(sparse_model("SparseConv", weight, bias, pads=[1, 1, 1, 1]), x)
    assert_close(got, run_dense("Conv", weight, x, bias, pads=[1, 1, 1, 1]))
    assert (got[0, 5:20] == bias[5:20, None, None]).all()


@pytest.mark.parametrize("count", [1, 3, 40])
def test_any_number_of_threads_gives_the_same_bits(isa, count):
    models = {
        "conv": (
            sparse_model("SparseConvNoBias", sparse_array(600, 32, 3, 3), pads=[1] * 4),
            (1, 32, 17, 17),
        ),
        "gemm": (sparse_model("SparseGemm", sparse_array(900, 700)), (count, 900)),
    }
    for model, shape in models.values():
        x = dense_array(*shape)
        results = {run_kernels(model, x, threads).tobytes() for threads in (1, 2, 3, 4, 8)}
        assert len(results) == 1


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_tile_that_threads_share_equals_the_dense_one(isa, threads):
    weight, x = sparse_array(600, 32, 3, 3), dense_array(1, 32, 5, 5)
    session = kernel_session(sparse_model("SparseConvNoBias", weight, pads=[1] * 4), threads)
    expected = run_dense("Conv", weight, x, pads=[1] * 4)
    # The first runs measure how many threads there are.
    for _ in range(5):
        assert_close(session.run(None, {"x": x})[0], expected)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_every_node_that_onnxprune_writes_runs(node, dtype):
    dense, x = weighted_model(node, dtype)
    if dtype is np.float64 and "Conv" in node:
        pytest.skip("onnxruntime has no Conv in double")
    encoded, _ = sparse(dense)
    tolerance = 2e-3 if dtype is np.float16 else 1e-5
    assert_close(run_kernels(encoded, x), run(dense, x=x)[0], tolerance)


def test_values_stored_in_half_precision_serve_a_float_model():
    weight = sparse_array(64, 48).astype(np.float16)
    parts = {"values": weight[weight != 0]}
    x = dense_array(5, 64)
    got = run_kernels(sparse_model("SparseMatMul", weight.astype(np.float32), parts=parts), x)
    assert_close(got, run_dense("MatMul", weight.astype(np.float32), x))


def test_a_weight_outside_serves_a_node_in_the_body_of_an_if():
    dense = parse(
        """g (float[3, 32] x, bool c) => (float[a, b] y) {
            y = If (c) <
                then_branch = t () => (float[a, b] z) { z = MatMul (x, w) },
                else_branch = e () => (float[a, b] z) { z = Identity (v) }>
        }""",
        w=sparse_array(32, 16),
        v=dense_array(3, 16),
    )
    encoded, stored = sparse(dense)
    assert [outcome.format for outcome in stored] == ["ops", "dense"][: len(stored)]
    inputs = {"x": dense_array(3, 32), "c": np.array(True)}
    assert_close(kernel_session(encoded).run(None, inputs)[0], run(dense, **inputs)[0])


def test_a_weight_that_the_graph_computes_is_read_at_every_run():
    weight = sparse_array(32, 16)
    model = sparse_model("SparseMatMul", weight)
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["values", "scale"], ["scaled"]))
    model.graph.node[1].input[1] = "scaled"
    model.graph.input.append(onnx.helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, [1]))
    session, x = kernel_session(model), dense_array(3, 32)
    for scale in (np.float32([2]), np.float32([-3])):
        got = session.run(None, {"x": x, "scale": scale})[0]
        assert_close(got, run_dense("MatMul", weight * scale, x))


def test_one_session_takes_inputs_of_changing_shape():
    weight = sparse_array(20, 6, 3, 3)
    session = kernel_session(sparse_model("SparseConvNoBias", weight, strides=[2, 2]))
    for shape in [(1, 6, 9, 9), (2, 6, 14, 7), (1, 6, 9, 9)]:
        x = dense_array(*shape)
        assert_close(session.run(None, {"x": x})[0], run_dense("Conv", weight, x, strides=[2, 2]))

"""Sparse nodes whose x is quantized in the graph: stock onnxruntime, the kernels, and the way back."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxruntime.quantization import QuantType, quantize_dynamic

import onnxprune
from onnxprune import runtime
from onnxprune.model.weights import find_weights
from onnxprune.sparse.opening import open_model
from onnxprune.sparse.rewrite import to_ops
from tests.builders import mlp
from tests.fuzz.models import written
from tests.runtime.sessions import needs_kernels, run_kernels
from tests.sparse.graphs import run, sparse_types
from tests.sparse.test_blocks import sparse_integers
from tests.sparse.test_quantized import nodes_run, sparse, x_of

MATRIX = "g (float[N,{inputs}] x) => (float[N,{outputs}] y)"
IMAGES = "g (float[N,12,7,7] x) => (float[N,{outputs},7,7] y)"
QUANTIZED = "xq, xs, xz = DynamicQuantizeLinear (x)"
PADS = "<pads = [1, 1, 1, 1]>"
SCALED = "c = Cast <to = 1> (s) scale = Mul (xs, ws)"
SUMS = f"{QUANTIZED} s = MatMulInteger (xq, w, xz, wz)"
FLOATS = "com.microsoft.MatMulIntegerToFloat (xq, w, xs, ws, xz, wz"

# The operator that a node becomes, and the nodes that it is made of.
FORMS = {
    "SparseMatMulInteger": f"{SUMS} y = Cast <to = 1> (s)",
    "SparseMatMulIntegerCastMul": f"{SUMS} {SCALED} y = Mul (c, scale)",
    "SparseMatMulIntegerCastMulAdd": f"{SUMS} {SCALED} p = Mul (c, scale) y = Add (b, p)",
    "SparseConvInteger": f"{QUANTIZED} s = ConvInteger {PADS} (xq, w, xz, wz) y = Cast <to = 1> (s)",
    "SparseConvIntegerCastMul": f"{QUANTIZED} s = ConvInteger {PADS} (xq, w, xz, wz) {SCALED} y = Mul (scale, c)",
    "SparseMatMulIntegerToFloatNoBias": f"{QUANTIZED} y = {FLOATS})",
    "SparseMatMulIntegerToFloat": f"{QUANTIZED} y = {FLOATS}, b)",
    "SparseDynamicQuantizeMatMulNoBias": "y = com.microsoft.DynamicQuantizeMatMul (x, w, ws, wz)",
    "SparseDynamicQuantizeMatMul": "y = com.microsoft.DynamicQuantizeMatMul (x, w, ws, wz, b)",
}


def model_of(name, density=0.15, w_type=np.int8, zero=0, channels=False, inputs=40, outputs=32, most=127):
    """The model of a form. Weights of at most 6 bits add up exactly in onnxruntime on every machine."""
    conv = "Conv" in name
    weight = sparse_integers(
        (outputs, 12, 3, 3) if conv else (inputs, outputs), density, zero, w_type, seed=3
    )
    numbers = outputs if channels and not conv else 1
    constants = {
        "w": np.clip(weight, zero - most, zero + most).astype(w_type),
        "ws": np.linspace(0.01, 0.03, numbers, dtype=np.float32).reshape((numbers,) if numbers > 1 else ()),
        "wz": np.full((numbers,) if numbers > 1 else (), zero, w_type),
        "b": np.linspace(-3, 3, outputs, dtype=np.float32),
    }
    head = (IMAGES if conv else MATRIX).format(inputs=inputs, outputs=outputs)
    graph = f"{head} {{ {FORMS[name]} }}"
    used = {key: value for key, value in constants.items() if any(f"{key}{c}" in graph for c in ",) ")}
    return written(graph, used, opset=17, ir_version=8)


def unfused(model, x):
    """What onnxruntime makes of the model operator by operator."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("name", FORMS)
def test_stock_onnxruntime_runs_the_same_integer_operators_and_gives_the_same_bits(name, tmp_path):
    dense = model_of(name)
    made, (stored,) = sparse(dense)
    assert stored.format == "ops", stored.reason
    assert sparse_types(made.graph) == [name]
    onnx.checker.check_model(made, full_check=True)
    x = x_of(dense)
    expected = run(dense, x=x)[0]
    assert len(np.unique(expected)) > 20
    assert np.array_equal(run(made, x=x)[0], expected)
    ran = nodes_run(made, x, tmp_path)
    assert ran == nodes_run(dense, x, tmp_path)
    integers = ("MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
    assert any(operator in ran for operator in integers)


@needs_kernels
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "changed", [{}, {"channels": True}, {"w_type": np.uint8, "zero": 128}, {"density": 0.0}, {"density": 0.3}]
)
def test_kernels_give_the_bits_of_the_operators_one_by_one(name, changed):
    dense = model_of(name, most=31, **changed)
    made, (stored,) = sparse(dense)
    if stored.format != "ops":
        pytest.skip(stored.reason)
    for rows in (1, 5, 33):
        x = np.random.default_rng(rows).standard_normal((rows, *x_of(dense).shape[1:])).astype(np.float32)
        assert np.array_equal(run_kernels(made, x), unfused(dense, x))


@needs_kernels
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from([name for name in FORMS if "Conv" not in name]),
    rows=st.sampled_from([0, 1, 2, 7, 16, 17, 70]),
    inputs=st.integers(300, 420),
    outputs=st.integers(20, 90),
    zero=st.sampled_from([0, 128, 255]),
    channels=st.booleans(),
    span=st.sampled_from([(0.0, 0.0), (-1.0, 1.0), (3.0, 7.0), (-9.0, -2.0), (-1e30, 1e30), (0.0, 1e-30)]),
    threads=st.sampled_from([1, 2]),
)
def test_products_of_any_range_are_exact(name, rows, inputs, outputs, zero, channels, span, threads):
    w_type = np.uint8 if zero else np.int8
    dense = model_of(name, 0.1, w_type, zero, channels, inputs, outputs, most=31)
    made, (stored,) = sparse(dense)
    assert stored.format == "ops", stored.reason
    x = np.random.default_rng(rows).uniform(*span, (rows, inputs)).astype(np.float32)
    assert np.array_equal(run_kernels(made, x, threads), unfused(dense, x))


@needs_kernels
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["SparseDynamicQuantizeMatMul", "SparseMatMulIntegerCastMul"])
def test_numbers_that_are_not_finite_give_an_output(name, value):
    made, _ = sparse(model_of(name))
    x = np.ones((3, 40), np.float32)
    x[1, 7] = value
    assert run_kernels(made, x).shape == (3, 32)


@pytest.mark.parametrize("name", FORMS)
def test_a_sparse_file_opens_as_the_model_that_it_was_made_of(name):
    dense = model_of(name)
    made, _ = sparse(dense)
    back = ir.to_proto(open_model(made).model)
    assert sorted(node.op_type for node in back.graph.node) == sorted(
        node.op_type for node in dense.graph.node
    )
    old, new = ({t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in (dense, back))
    assert old.keys() == new.keys() and all(np.array_equal(old[key], new[key]) for key in old)
    onnx.checker.check_model(back, full_check=True)
    x = x_of(dense)
    assert np.array_equal(unfused(back, x), unfused(dense, x))
    again, _ = sparse(back)
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in made.graph.node]


@pytest.mark.parametrize(
    ("tail", "becomes"),
    [
        (f"{SCALED} y = Mul (c, scale) z = Relu (c)", "SparseMatMulInteger"),
        (
            "c = Cast <to = 1> (s) rows = Expand (xs, dims) scale = Mul (rows, ws) y = Mul (c, scale)",
            "SparseMatMulInteger",
        ),
        (f"{SCALED} p = Mul (c, scale) y = Add (p, row)", "SparseMatMulIntegerCastMul"),
    ],
)
def test_what_does_not_fit_a_form_is_left_to_onnxruntime(tail, becomes):
    constants = {
        t.name: onnx.numpy_helper.to_array(t)
        for t in model_of("SparseMatMulIntegerCastMul").graph.initializer
    }
    constants |= {"row": np.ones((3, 32), np.float32)} if "row)" in tail else {}
    constants |= {"dims": np.array([3, 1])} if "dims" in tail else {}
    dense = written(
        f"g (float[3,40] x) => (float[3,32] y) {{ {SUMS} {tail} }}", constants, opset=17, ir_version=8
    )
    made, _ = sparse(dense)
    assert sparse_types(made.graph) == [becomes]
    x = x_of(dense)
    assert np.array_equal(unfused(made, x), unfused(dense, x))


@pytest.mark.parametrize("per_channel", [False, True])
def test_what_quantize_dynamic_writes_is_pruned_and_stored_sparse(per_channel, tmp_path):
    onnx.save(mlp(64, 128, 32), tmp_path / "float.onnx")
    quantize_dynamic(
        tmp_path / "float.onnx", tmp_path / "in.onnx", per_channel=per_channel, weight_type=QuantType.QInt8
    )
    pruned = onnxprune.prune(tmp_path / "in.onnx", rate=0.9, kernels="all").model
    found = sparse_types(pruned.graph)
    assert len(found) == 2 and set(found) <= {*FORMS}
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    expected = run(pruned, x=x)[0]
    if runtime.available():
        np.testing.assert_allclose(run_kernels(pruned, x), expected, rtol=1e-5, atol=1e-5)
    graph = ir.from_proto(pruned)
    assert all(stored.format == "ops" for stored in to_ops(open_model(graph).model, ()))
    assert len(find_weights(open_model(pruned).model).prunable) == 2

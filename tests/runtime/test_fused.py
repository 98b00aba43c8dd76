import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.sparse.functions import FUSED_OPS
from tests.runtime.sessions import assert_close, kernel_session, needs_kernels, run_kernels
from tests.sparse.graphs import dense_array, op_types, parse, run, sparse, sparse_array
from tests.sparse.test_fuse import SUMS, TAILS, followed, runs

pytestmark = needs_kernels

DRAWN = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def run_with_kernels(model, inputs, threads=1):
    return kernel_session(model, threads).run(None, inputs)[0]


@pytest.mark.parametrize("dtype", ["float", "float16", "double"])
@pytest.mark.parametrize("addend", [False, True], ids=["alone", "with an addend"])
@pytest.mark.parametrize("tail", ["", *TAILS])
@pytest.mark.parametrize("sum_name", SUMS)
def test_every_fused_operator_equals_its_function(sum_name, tail, addend, dtype):
    text, since = TAILS.get(tail, ("", 11))
    dense, inputs = followed(sum_name, text, addend=addend, opset=max(since, 13), dtype=dtype)
    encoded, _ = sparse(dense)
    if not runs(encoded, inputs):
        pytest.skip("this onnxruntime does not run the standard operators in this type")
    got = run_with_kernels(encoded, inputs)
    assert_close(got, run(encoded, **inputs)[0], 2e-3 if dtype == "float16" else 1e-5)


@st.composite
def fused_models(draw):
    """A fused operator, a dense model that becomes one, and its inputs."""
    op = draw(st.sampled_from([op for op in FUSED_OPS if op.activation.since <= 14]))
    tail = TAILS[op.activation.name][0] if op.activation.text else ""
    outputs, batch = draw(st.integers(1, 70)), draw(st.integers(0, 20))
    if op.op_type == "Conv":
        side, kernel = draw(st.integers(3, 20)), draw(st.sampled_from([1, 3]))
        x_shape, w_shape = (min(batch, 2), 4, side, 9), (outputs, 4, kernel, kernel)
        y_shape = (min(batch, 2), outputs, side - kernel + 1, 9 - kernel + 1)
    else:
        x_shape, w_shape, y_shape = (batch, 40), (40, outputs), (batch, outputs)
    operands = "x, w, b" if len(op.operands) == 3 else "x, w"
    first = "p" if op.has_addend else "z"
    nodes = f"{first} = {op.op_type} ({operands})"
    if op.has_addend:
        nodes += f" {'z' if tail else 'y'} = Add (p, r)"
    rest = f", float[{', '.join(map(str, y_shape))}] r" if op.has_addend else ""
    scalars = {"nought": 0, "three": 3, "six": 6}
    constants = {
        "w": sparse_array(*w_shape, density=0.2, seed=draw(st.integers(0, 9))),
        **({"b": dense_array(outputs, seed=3)} if operands.endswith("b") else {}),
        **{name: np.float32(number) for name, number in scalars.items() if name in tail},
    }
    text = f"""g (float[{", ".join(map(str, x_shape))}] x{rest})
        => (float[{", ".join(map(str, y_shape))}] y) {{ {nodes} {tail} }}"""
    inputs = {"x": dense_array(*x_shape)} | ({"r": dense_array(*y_shape, seed=5)} if op.has_addend else {})
    return op, parse(text, opset=14, **constants), inputs


@DRAWN
@given(fused_models())
def test_fused_operators_of_any_size_equal_the_file_without_the_library(isa, case):
    op, dense, inputs = case
    encoded, _ = sparse(dense)
    if op_types(encoded.graph) != [op.name]:  # a small weight stays dense
        return
    assert_close(run_with_kernels(encoded, inputs), run(encoded, **inputs)[0])


@pytest.mark.parametrize("op", FUSED_OPS, ids=lambda op: op.name)
def test_any_number_of_threads_gives_the_same_bits(op):
    tail, since = TAILS[op.activation.name] if op.activation.text else ("", 11)
    dense, inputs = followed(op.base_name, tail, addend=op.has_addend, opset=max(since, 13))
    if not runs(dense, inputs):
        pytest.skip(f"this onnxruntime does not run opset {since}")
    encoded, _ = sparse(dense)
    one, *more = (run_with_kernels(encoded, inputs, threads) for threads in range(1, 9))
    assert {got.tobytes() for got in more} == {one.tobytes()}


def as_it_comes(activation, z):
    """What an activation makes of z: the product with a weight of one in a hundred is z itself."""
    dense = parse(
        f"g (float[n, 100] x) => (float[n, 100] y) {{ z = MatMul (x, w) {TAILS[activation][0]} }}",
        w=np.eye(100, dtype=np.float32),
    )
    encoded, _ = sparse(dense)
    return run_kernels(encoded, z.reshape(-1, 100)).reshape(-1)


def test_sigmoid_is_within_a_millionth_of_double(isa):
    z = np.concatenate([np.linspace(-100, 100, 9_000), np.linspace(-1, 1, 1_000)]).astype(np.float32)
    exact = 1 / (1 + np.exp(-z.astype(np.float64)))
    assert np.abs(as_it_comes("Sigmoid", z) - exact).max() < 1e-6
    near = z > -80
    assert (np.abs(as_it_comes("Sigmoid", z) - exact) / exact)[near].max() < 1e-6
    assert np.abs(as_it_comes("SigmoidMul", z) - z * exact).max() < 1e-5
    assert (np.abs(as_it_comes("SigmoidMul", z) - z * exact) <= 1e-6 * np.maximum(np.abs(z * exact), 1e-30))[
        near
    ].all()


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Sigmoid", "SigmoidMul", "HardSwish"])
def test_nan_stays_nan_and_infinities_come_through(activation):
    dense = parse(
        f"g (float[n, 40] x) => (float[n, 40] y) {{ z = Gemm (x, w, b) {TAILS[activation][0]} }}",
        opset=14,
        w=sparse_array(40, 40) * 0,
        b=np.resize(np.float32([np.nan, np.inf, -np.inf, 3]), 40),
    )
    encoded, _ = sparse(dense)
    x = dense_array(3, 40)
    np.testing.assert_allclose(run_kernels(encoded, x), run(dense, x=x)[0], rtol=1e-5)


def test_an_addend_of_another_shape_than_declared_is_refused():
    dense, inputs = followed("SparseConv", TAILS["Relu"][0], addend=True)
    encoded, _ = sparse(dense)
    encoded.graph.input[1].type.tensor_type.ClearField("shape")
    inputs["r"] = inputs["r"][:, :1]
    with pytest.raises(Exception, match=r"SparseConvAddRelu node '.*' cannot run: its addend has shape"):
        run_with_kernels(encoded, inputs)

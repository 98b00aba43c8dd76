"""Where exporters leave weights: each is found and pruned, or named with the reason."""

import ml_dtypes
import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.model.files.io import load
from onnxprune.model.weights import find_weights
from tests.builders import normal
from tests.fuzz.models import MODELS, written

W = {"w": normal(8, 6)}
X, Y = "float[N,8] x", "float[N,6] y"
IMAGE = "float[N,3,9,9] x"

HABITS = {
    "Transpose": (
        f"g ({X}) => ({Y}) {{ t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }}",
        {"w": normal(6, 8)},
    ),
    "Transpose without perm": (
        f"g ({X}) => ({Y}) {{ t = Transpose (w) y = MatMul (x, t) }}",
        {"w": normal(6, 8)},
    ),
    "Identity": (f"g ({X}) => ({Y}) {{ t = Identity (w) y = MatMul (x, t) }}", W),
    "Cast": (
        f"g ({X}) => ({Y}) {{ t = Cast <to = 1> (w) y = MatMul (x, t) }}",
        {"w": normal(8, 6).astype("f2")},
    ),
    "Reshape": (
        f"g ({X}) => ({Y}) {{ t = Reshape (w, s) y = MatMul (x, t) }}",
        {"w": normal(2, 4, 6), "s": np.array([8, 6])},
    ),
    "Gemm with alpha, beta and transA": (
        "g (float[8,N] x) => (float[N,6] y) { y = Gemm <alpha = 0.5, beta = 2.0, transA = 1> (x, w, b) }",
        W | {"b": normal(6)},
    ),
    "double": (
        "g (double[N,8] x) => (double[N,6] y) { y = MatMul (x, w) }",
        {"w": normal(8, 6).astype("f8")},
    ),
    "3-D MatMul": ("g (float[2,N,8] x) => (float[2,N,6] y) { y = MatMul (x, w) }", {"w": normal(2, 8, 6)}),
    "shared": (
        "g (float[N,8] x) => (float[N,8] y) { h = MatMul (x, w) y = MatMul (h, w) }",
        {"w": normal(8, 8)},
    ),
    "Conv1d": ("g (float[N,3,9] x) => (float[N,4,L] y) { y = Conv (x, w) }", {"w": normal(4, 3, 3)}),
    "Conv3d": (
        "g (float[N,2,5,5,5] x) => (float[N,4,D,H,W] y) { y = Conv (x, w) }",
        {"w": normal(4, 2, 3, 3, 3)},
    ),
    "ConvTranspose": (
        f"g ({IMAGE}) => (float[N,2,H,W] y) {{ y = ConvTranspose (x, w) }}",
        {"w": normal(3, 2, 3, 3)},
    ),
    "GRU": (
        "g (float[T,N,4] x) => (float[T,1,N,5] y) { y = GRU <hidden_size = 5> (x, w, r) }",
        {"w": normal(1, 15, 4), "r": normal(1, 15, 5)},
    ),
    "RNN": (
        "g (float[T,N,4] x) => (float[T,1,N,5] y) { y = RNN <hidden_size = 5> (x, w, r) }",
        {"w": normal(1, 5, 4), "r": normal(1, 5, 5)},
    ),
    "Unsqueeze and Transpose": (
        """g (float[N,1,8] x) => (float[N,1,6] y) {
            u = Unsqueeze (w, a) t = Transpose <perm = [0, 2, 1]> (u) y = MatMul (x, t)
        }""",
        {"w": normal(6, 8), "a": np.array([0])},
    ),
    "Identity, Transpose, Reshape and Cast": (
        f"""g ({X}) => ({Y}) {{
            i = Identity (w) t = Transpose (i) r = Reshape (t, s) c = Cast <to = 1> (r) y = MatMul (x, c)
        }}""",
        {"w": normal(6, 8).astype("f2"), "s": np.array([8, 6])},
    ),
    "bfloat16": (
        f"g ({X}) => ({Y}) {{ t = Cast <to = 1> (w) y = MatMul (x, t) }}",
        {"w": normal(8, 6).astype(ml_dtypes.bfloat16)},
    ),
    "QuantizeLinear and DequantizeLinear": (
        f"g ({X}) => ({Y}) {{ q = QuantizeLinear (w, s, z) t = DequantizeLinear (q, s, z) y = MatMul (x, t) }}",
        W | {"s": np.float32(0.05), "z": np.int8(3)},
    ),
    "Gemm with the weight on the left": (
        "g (float[8,N] x) => (float[6,N] y) { y = Gemm <transA = 1> (w, x) }",
        W,
    ),
    "Attention": (
        "g (float[N,4,8] x) => (float[N,4,8] y) { y = com.microsoft.Attention <num_heads = 2> (x, w, b) }",
        {"w": normal(8, 24), "b": normal(24)},
    ),
    "LSTM of int8": (
        """g (float[T,N,4] x) => (float[T,1,N,5] y) {
            d = DequantizeLinear (w, s, z) y = LSTM <hidden_size = 5> (x, d, r)
        }""",
        {
            "w": (40 * normal(1, 20, 4)).astype("i1"),
            "r": normal(1, 20, 5),
            "s": np.float32(0.02),
            "z": np.int8(5),
        },
    ),
    "FusedConv": (
        f'g ({IMAGE}) => (float[N,4,H,W] y) {{ y = com.microsoft.FusedConv <activation = "Relu"> (x, w) }}',
        {"w": normal(4, 3, 3, 3)},
    ),
    "FusedMatMul": (
        f"g ({X}) => ({Y}) {{ y = com.microsoft.FusedMatMul <transB = 1> (x, w) }}",
        {"w": normal(6, 8)},
    ),
    "FusedGemm": (
        f'g ({X}) => ({Y}) {{ y = com.microsoft.FusedGemm <activation = "Relu"> (x, w, b) }}',
        W | {"b": normal(6)},
    ),
}
MODEL_HABITS = (
    "constants",
    "old",
    "if",
    "loop",
    "scan",
    "lstm",
    "einsum",
    "half",
    "quantized",
    "function",
    "ops mlp",
    "coo mlp",
)


def built(name):
    return written(*HABITS[name]) if name in HABITS else MODELS[name]()


@pytest.mark.parametrize("form", ["ops", "dense", "coo"])
@pytest.mark.parametrize("name", [*HABITS, *MODEL_HABITS])
def test_weights_are_found_and_half_pruned_wherever_they_are(name, form):
    model = built(name)
    result = onnxprune.prune(model, rate=0.5, format=form, remove_dead=False)
    before, after = (load(m)[0] for m in (model, result.model))
    assert result.report.layers
    for layer in result.report.layers:
        assert layer.kept <= layer.size - round(layer.size * 0.5)
    if form == "dense":
        names = [weight.name for weight in find_weights(before).prunable if "ops" not in name]
        found = {weight.name: weight for weight in find_weights(after).prunable}
        assert all(found[n].nonzero() <= found[n].size - round(found[n].size * 0.5) for n in names)


@pytest.mark.parametrize(
    ("node", "weight", "out_axis"),
    [
        ('Einsum <equation = "nj,jk->nk"> (x, w)', (8, 6), 1),
        ('Einsum <equation = "nj, kj -> nk"> (x, w)', (6, 8), 0),
        ('Einsum <equation = "kj,nj->nk"> (w, x)', (6, 8), 0),
        ('Einsum <equation = "damaged"> (x, w)', (6, 8), 1),
        ("MatMul (x, w)", (8, 6), 1),
        ("Gemm <transB = 1> (x, w)", (6, 8), 0),
        ("com.microsoft.FusedMatMul <transB = 1> (x, w)", (6, 8), 0),
    ],
)
def test_outputs_lie_along_the_axis_that_the_operator_says_and_data_are_no_weight(node, weight, out_axis):
    found = find_weights(load(written(f"g ({X}) => ({Y}) {{ y = {node} }}", {"w": normal(*weight)}))[0])
    assert [w.out_axis for w in found.prunable] == [out_axis]
    assert not found.unprunable


def test_what_cannot_be_pruned_is_named_with_the_reason():
    for node, constants, reason in (
        ("t = Mul (w, s) y = MatMul (x, t)", W | {"s": np.float32(2)}, "computed in the graph, by Mul"),
        (
            "t = DequantizeLinear (w, s) y = MatMul (x, t)",
            {"w": normal(8, 6).astype(ml_dtypes.float8_e4m3fn), "s": np.float32(1)},
            "FLOAT8E4M3FN",
        ),
    ):
        found = find_weights(
            load(written(f"g ({X}) => ({Y}) {{ {node} }}", constants, opset=19, ir_version=9))[0]
        )
        assert not found.prunable
        assert reason in found.unprunable[0].reason


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_from_7_on_is_pruned(opset):
    newest = max(entry[2] for entry in onnx.helper.VERSION_TABLE if entry[2] <= opset)
    ir_version = max(3, min(entry[1] for entry in onnx.helper.VERSION_TABLE if entry[2] == newest))
    text = f"g ({X}) => ({Y}) {{ y = MatMul (x, w) }}"
    model = written(text, {"w": normal(8, 6)}, opset=opset, ir_version=ir_version)
    if ir_version == 3:
        model.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("w", 1, [8, 6]))
    try:
        result = onnxprune.prune(model, rate=0.5)
    except onnxprune.errors.ModelFileError as refusal:
        assert "onnxruntime cannot load" in str(refusal)
        assert opset > 24
        return
    assert result.report.layers[0].kept == 24


def test_large_matrices_of_other_operators_are_named_but_no_biases_states_or_zeros():
    text = """g (float[t,n,16] x) => (float[t,1,n,16] y, float[t,n,16] z) {
        y = LSTM <hidden_size = 16> (x, w, r, b) p = Add (x, table) z = Add (p, zeros)
    }"""
    constants = {"w": normal(1, 64, 16), "r": normal(1, 64, 16), "b": normal(1, 128)}
    constants |= {"table": normal(5, 2, 16), "zeros": np.zeros((5, 2, 16), "f4")}
    found = find_weights(load(written(text, constants))[0])
    assert [weight.name for weight in found.prunable] == ["w", "r"]
    (one,) = found.unprunable
    assert (one.weight, one.op_type, one.size) == ("table", "Add", 160)
    assert one.reason == "no weights of Add are pruned"


@pytest.mark.parametrize("shape", [(8, 0), (0, 8)])
def test_a_constant_without_elements_is_no_weight(shape):
    text = f"g ({X}) => ({Y}) {{ a = MatMul (x, w) b = Reshape (none, new) y = Add (a, b) c = MatMul (x, none) }}"
    constants = {"w": normal(8, 6), "none": np.zeros(shape, np.float32), "new": np.array([0, 6])}
    found = find_weights(load(written(text, constants))[0])
    assert [weight.name for weight in found.prunable] == ["w"]
    assert not found.unprunable

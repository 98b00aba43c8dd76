"""Where exporters leave weights: each is found and pruned, or named with the reason."""

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.model.io import load
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
def test_weights_are_found_wherever_they_are_and_half_of_each_goes(name, form):
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
        assert "onnxruntime refuses" in str(refusal)
        assert opset > 24
        return
    assert result.report.layers[0].kept == 24

"""Twenty small models that between them hold every part of an ONNX file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper

import onnxprune
from tests.builders import cnn, mlp, normal


def written(
    text: str, weights: dict[str, np.ndarray], *, opset: int = 17, ir_version: int = 8, functions: str = ""
) -> onnx.ModelProto:
    """A model from ONNX's text form of a graph, with these weights as initializers."""
    imports = f'"" : {opset}, "local" : 1, "com.microsoft" : 1'
    model = onnx.parser.parse_model(
        f"<ir_version: {ir_version}, opset_import: [{imports}]>\n{text}\n{functions}"
    )
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def _pruned(model: onnx.ModelProto, form: str) -> onnx.ModelProto:
    return onnxprune.prune(model, rate=0.9, format=form).model


def _constants() -> onnx.ModelProto:
    """Weights in Constant nodes, as PaddlePaddle writes them."""
    model = mlp()
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _old() -> onnx.ModelProto:
    """IR version 3 and opset 7, initializers listed as inputs."""
    model = mlp(opset=7)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, 1, tensor.dims))
    return model


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": mlp,
    "cnn": cnn,
    "constants": _constants,
    "old": _old,
    "ops mlp": lambda: _pruned(mlp(32, 64), "ops"),
    "ops cnn": lambda: _pruned(cnn(), "ops"),
    "coo mlp": lambda: _pruned(mlp(32, 64), "coo"),
    "large": lambda: mlp(64, 512),
    "if": lambda: written(
        """g (float[N,8] x, bool c) => (float[N,4] y) {
            y = If (c) <then_branch = t () => (float[N,4] a) { a = MatMul (x, w) },
                        else_branch = e () => (float[N,4] b) { d = MatMul (x, v) b = Relu (d) }>
        }""",
        {"w": normal(8, 4), "v": normal(8, 4, seed=1)},
    ),
    "loop": lambda: written(
        """g (float[N,8] x) => (float[N,8] y) {
            y = Loop (count, yes, x) <body = b (int64 i, bool k, float[N,8] s) => (bool k2, float[N,8] s2)
                { k2 = Identity (k) m = MatMul (s, w) s2 = Tanh (m) }>
        }""",
        {"w": normal(8, 8), "count": np.array(3), "yes": np.array(True)},
    ),
    "scan": lambda: written(
        """g (float[5,8] x) => (float[8] s, float[5,8] y) {
            s, y = Scan <num_scan_inputs = 1, body = b (float[8] h, float[8] e) => (float[8] h2, float[8] o)
                { m = MatMul (w, e) a = Add (m, h) h2 = Tanh (a) o = Identity (h2) }> (start, x)
        }""",
        {"w": normal(8, 8), "start": np.zeros(8, np.float32)},
    ),
    "function": lambda: written(
        "g (float[N,8] x) => (float[N,4] y) { h = local.dense (x, w) y = local.dense (h, v) }",
        {"w": normal(8, 6), "v": normal(6, 4, seed=1)},
        functions="""<domain: "local", opset_import: ["" : 17]>
            dense (a, b) => (c) { m = MatMul (a, b) c = Relu (m) }""",
    ),
    "lstm": lambda: written(
        "g (float[T,N,4] x) => (float[T,1,N,6] y) { y = LSTM <hidden_size = 6> (x, w, r, b) }",
        {"w": normal(1, 24, 4), "r": normal(1, 24, 6, seed=1), "b": normal(1, 48, seed=2)},
    ),
    "attention": lambda: written(
        """g (float[N,T,8] x) => (float[N,T,8] y) {
            q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)
            k2 = Transpose <perm = [0, 2, 1]> (k) s = MatMul (q, k2) p = Softmax <axis = -1> (s)
            o = MatMul (p, v) r = Add (o, x) n = LayerNormalization <axis = -1> (r, g, b) y = MatMul (n, wo)
        }""",
        {name: normal(8, 8, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
        | {"g": np.ones(8, np.float32), "b": np.zeros(8, np.float32)},
    ),
    "residual": lambda: written(
        """g (float[N,3,8,8] x) => (float[N,5] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w1) b = BatchNormalization (a, s, z, z, s) c = Relu (b)
            d = Conv <pads = [1, 1, 1, 1]> (c, w2) e = Add (d, c) f = GlobalAveragePool (e)
            h = Flatten (f) y = Gemm <alpha = 0.5, transB = 1> (h, w3, bias)
        }""",
        {"w1": normal(4, 3, 3, 3), "w2": normal(4, 4, 3, 3, seed=1), "w3": normal(5, 4), "bias": normal(5)}
        | {"s": np.ones(4, np.float32), "z": np.zeros(4, np.float32)},
    ),
    "transposed conv": lambda: written(
        "g (float[N,3,5,5] x) => (float[N,2,h,w] y) { y = ConvTranspose <strides = [2, 2]> (x, k, b) }",
        {"k": normal(3, 2, 3, 3), "b": normal(2)},
    ),
    "einsum": lambda: written(
        'g (float[N,4,8] x) => (float[N,4,6] y) { y = Einsum <equation = "nij,jk->nik"> (x, w) }',
        {"w": normal(8, 6)},
    ),
    "quantized": lambda: written(
        """g (float[N,8] x) => (float[N,4] y) {
            q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
            w = DequantizeLinear (k, s, z) y = MatMul (d, w)
        }""",
        {"k": normal(8, 4).astype(np.int8), "s": np.float32(0.1), "z": np.int8(0)},
    ),
    "half": lambda: written(
        "g (float16[N,8] x) => (float16[N,4] y) { y = MatMul (x, w) }", {"w": normal(8, 4).astype(np.float16)}
    ),
    "shapes": lambda: written(
        """g (float[N,2,8] x) => (float[N,4] y) {
            s = Shape (x) n = Gather (s, zero) u = Unsqueeze (n, axes) t = Concat <axis = 0> (u, rest)
            f = Reshape (x, t) p = Slice (f, axes, end, one) y = MatMul (p, w)
        }""",
        {"w": normal(16, 4), "zero": np.array(0), "axes": np.array([0]), "rest": np.array([16])}
        | {"end": np.array([16]), "one": np.array([1])},
    ),
}

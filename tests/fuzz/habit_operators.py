"""Models of operators that are seldom, or at the ends of graphs, or fused by a runtime."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.builders import floats, normal
from tests.fuzz.habit import HABITS, SAMPLES, TWO, Habit, classes, dense, habit, images, mlp_of, tail, with_ml
from tests.fuzz.models import MODELS, written


@habit("Conv3d")
def _conv3d() -> Habit:
    return images(
        """g (float[N,1,4,6,6] x) => (float[N,4] y) {
            a = Conv (x, k) b = Relu (a) c = GlobalAveragePool (b) f = Flatten (c) y = Gemm (f, v) }""",
        {"k": normal(6, 1, 3, 3, 3), "v": normal(6, 4)},
        (1, 4, 6, 6),
    )


@habit("Conv1d")
def _conv1d() -> Habit:
    return images(
        """g (float[N,3,16] x) => (float[N,4] y) {
            a = Conv <pads = [1, 1], group = 1> (x, k) b = LeakyRelu (a) c = ReduceMean <axes = [2], keepdims = 0> (b)
            y = Gemm (c, v) }""",
        {"k": normal(6, 3, 3), "v": normal(6, 4)},
        (3, 16),
    )


@habit("depthwise convolution")
def _depthwise() -> Habit:
    return images(
        """g (float[N,4,8,8] x) => (float[N,5] y) {
            a = Conv <group = 4, pads = [1,1,1,1]> (x, d) b = Conv (a, k) e = HardSwish (b)
            c = GlobalAveragePool (e) f = Flatten (c) y = Gemm (f, v) }""",
        {"d": normal(4, 1, 3, 3), "k": normal(8, 4, 1, 1), "v": normal(8, 5)},
        (4, 8, 8),
    )


@habit("shortcut padded by computed pads")
def _computed_pads() -> Habit:
    return images(
        """g (float[N,4,8,8] x) => (float[N,5] y) {
            a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, k)
            s = AveragePool <kernel_shape = [2,2], strides = [2,2]> (x)
            n = Concat <axis = 0> (zero, two, zero, zero, zero, two, zero, zero)
            e = Pad (s, n) b = Add (a, e) c = Relu (b) d = GlobalAveragePool (c) f = Flatten (d) y = Gemm (f, v) }""",
        {"k": normal(8, 4, 3, 3), "v": normal(8, 5), "zero": np.array([0]), "two": np.array([2])},
        (4, 8, 8),
    )


@habit("EmbedLayerNormalization and SkipLayerNormalization")
def _fused_embedding() -> Habit:
    """As onnxruntime's transformer optimizer leaves a BERT."""
    text = """g (int32[N,6] ids, int32[N,6] mask) => (float[N,6,4] y) {
        e, m = com.microsoft.EmbedLayerNormalization (ids, , words, places, , g, b, , mask)
        a = com.microsoft.Attention <num_heads = 2> (e, wq, bq, m)
        o = MatMul (a, wo) s = com.microsoft.SkipLayerNormalization (o, e, g, b)
        y = MatMul (s, v) }"""
    weights = {"words": normal(20, 8), "places": normal(6, 8, seed=1), "g": np.ones(8, np.float32)}
    weights |= {"b": np.zeros(8, np.float32), "wq": normal(8, 24), "bq": np.zeros(24, np.float32)}
    weights |= {"wo": normal(8, 8, seed=2), "v": normal(8, 4, seed=3)}
    ids = np.random.default_rng(0).integers(0, 20, (SAMPLES, 6)).astype(np.int32)
    return Habit(written(text, weights), {"ids": ids, "mask": np.ones((SAMPLES, 6), np.int32)})


@habit("fused activations of onnxruntime")
def _fused_activations() -> Habit:
    return mlp_of(
        "b = com.microsoft.BiasGelu (h, bias) q = com.microsoft.QuickGelu (b) r = com.microsoft.FastGelu (q)",
        {"bias": normal(16)},
    )


@habit("DFT in the middle")
def _dft() -> Habit:
    return mlp_of(
        "u = Unsqueeze (h, two) t = DFT <axis = 1> (u) z = ReduceL2 <axes = [2], keepdims = 0> (t) r = Relu (z)",
        {"two": np.array([2])},
    )


@habit("STFT before the weights")
def _stft() -> Habit:
    """A spectrogram in front, as of audio models."""
    return dense(
        """g (float[N,8] x) => (float[N,5,4] y) {
            t = STFT (x, step, window) m = ReduceL2 <axes = [3], keepdims = 0> (t) h = MatMul (m, w)
            r = Relu (h) y = MatMul (r, v) }""",
        {"step": np.array(1), "window": np.ones(4, np.float32), "w": normal(3, 16), "v": TWO["v"]},
        labels=None,
    )


@habit("STFT at the end")
def _stft_end() -> Habit:
    return tail(
        "y = STFT (p, step, window)",
        "float[N,3,2,2] y",
        {"step": np.array(1), "window": np.ones(2, np.float32)},
    )


@habit("RandomNormalLike")
def _random() -> Habit:
    return mlp_of("n = RandomNormalLike <scale = 0.1> (h) a = Add (h, n) r = Relu (a)")


@habit("Dropout and Bernoulli")
def _bernoulli() -> Habit:
    return mlp_of("s = Sigmoid (h) m = Bernoulli (s) a = Mul (h, m) r = Dropout (a)")


@habit("MaxUnpool")
def _max_unpool() -> Habit:
    return images(
        """g (float[N,2,8,8] x) => (float[N,3,8,8] y) {
            a = Conv <pads = [1,1,1,1]> (x, k) b, i = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)
            c = MaxUnpool <kernel_shape = [2,2], strides = [2,2]> (b, i) y = Conv <pads = [1,1,1,1]> (c, j) }""",
        {"k": normal(6, 2, 3, 3), "j": normal(3, 6, 3, 3)},
        (2, 8, 8),
    )


@habit("GridSample")
def _grid() -> Habit:
    return images(
        """g (float[N,2,6,6] x) => (float[N,4] y) {
            f = Conv <pads = [1,1,1,1]> (x, k) t = Conv <pads = [1,1,1,1]> (x, j) u = Transpose <perm = [0,2,3,1]> (t)
            q = Tanh (u) s = GridSample (f, q) c = GlobalAveragePool (s) e = Flatten (c) y = Gemm (e, v) }""",
        {"k": normal(6, 2, 3, 3), "j": normal(2, 2, 3, 3), "v": normal(6, 4)},
        (2, 6, 6),
    )


@habit("DeformConv")
def _deform() -> Habit:
    return images(
        """g (float[N,2,6,6] x) => (float[N,4] y) {
            o = Conv (x, j) f = DeformConv <kernel_shape = [3,3]> (x, k, o) r = Relu (f)
            c = GlobalAveragePool (r) e = Flatten (c) y = Gemm (e, v) }""",
        {"k": normal(6, 2, 3, 3), "j": normal(18, 2, 3, 3) * 0.1, "v": normal(6, 4)},
        (2, 6, 6),
        opset=19,
    )


@habit("QuantizeLinear at the end")
def _quantized_end() -> Habit:
    return tail("y = QuantizeLinear (p, s, z)", "uint8[N,4] y", {"s": np.float32(0.1), "z": np.uint8(128)})


@habit("TopK, ArgMax at the end")
def _top() -> Habit:
    return tail(
        "s = Softmax <axis = 1> (p) y, i = TopK (s, two)",
        "float[N,2] y, int64[N,2] i",
        {"two": np.array([2])},
    )


@habit("NonZero at the end")
def _nonzero() -> Habit:
    return tail("b = Greater (p, far) y = NonZero (b)", "int64[2,M] y", {"far": np.float32(1e9)})


for _name in (
    "if",
    "loop",
    "lstm",
    "attention",
    "residual",
    "transposed conv",
    "einsum",
    "function",
    "half",
    "shapes",
):
    HABITS[f"fuzz {_name}"] = lambda name=_name: _from_fuzz(name)
HABITS["QDQ"] = lambda: _from_fuzz("quantized")
HABITS["Scan"] = lambda: _from_fuzz("scan")
HABITS["weights in Constant nodes"] = lambda: _from_fuzz("constants")
EXTRA_INPUTS = {"if": {"c": np.array(True)}}
SIZES = {"N": SAMPLES, "T": 3, "h": 3, "w": 3}


def _from_fuzz(name: str) -> Habit:
    """A model of the fuzzer, with data of its input's declared shape."""
    model = MODELS[name]()
    kind = model.graph.input[0].type.tensor_type
    shape = [SIZES[dim.dim_param] if dim.dim_param else dim.dim_value for dim in kind.shape.dim]
    values = normal(*shape, seed=9).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    inputs = {model.graph.input[0].name: values}
    if name == "lstm":
        # Time first: samples along axis 1 in the model, along axis 0 in the data.
        inputs = {"x": np.ascontiguousarray(np.swapaxes(values, 0, 1))}
    if name == "scan":
        inputs = {"x": normal(SAMPLES, 5, 8, seed=9)}
    if name == "if":
        inputs["c"] = np.ones(SAMPLES, bool)
    return Habit(model, inputs)


@habit("classes by tree ensemble")
def _trees() -> Habit:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node(
            "TreeEnsembleRegressor",
            ["h"],
            ["y"],
            domain="ai.onnx.ml",
            n_targets=1,
            nodes_treeids=[0, 0, 0],
            nodes_nodeids=[0, 1, 2],
            nodes_featureids=[0, 0, 0],
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
            nodes_values=[0.0, 0.0, 0.0],
            nodes_truenodeids=[1, 0, 0],
            nodes_falsenodeids=[2, 0, 0],
            target_treeids=[0, 0],
            target_nodeids=[1, 2],
            target_ids=[0, 0],
            target_weights=[1.0, -1.0],
        ),
    ]
    model = with_ml(nodes, [floats("x", "N", 8)], [floats("y", "N", 1)], {"w": normal(8, 4)})
    return Habit(model, {"x": normal(SAMPLES, 8)}, classes(2))


@habit("residual stream through written-out root mean squares")
def _decoder() -> Habit:
    text = """g (int64[N,5] ids) => (float[N,4] y) {
        e = Gather (table, ids) p = Pow (e, two) m = ReduceMean <axes = [-1], keepdims = 1> (p) a = Add (m, eps)
        s = Sqrt (a) d = Div (e, s) n = Mul (d, gamma) h = MatMul (n, w) r = Relu (h) b = MatMul (r, u)
        c = Add (e, b) q = Mul (c, c) k = ReduceMean <axes = [-1], keepdims = 1> (q) i = Add (k, eps) j = Sqrt (i)
        l = Reciprocal (j) o = Mul (c, l) f = Mul (o, gamma) t = ReduceMean <axes = [1], keepdims = 0> (f)
        y = MatMul (t, v) }"""
    weights = {"table": normal(20, 8), "gamma": normal(8), "w": normal(8, 16), "u": normal(16, 8, seed=1)}
    weights |= {"v": normal(8, 4), "two": np.float32(2), "eps": np.float32(1e-5)}
    return Habit(
        written(text, weights), {"ids": np.random.default_rng(0).integers(0, 20, (SAMPLES, 5))}, classes()
    )

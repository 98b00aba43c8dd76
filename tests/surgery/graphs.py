"""Graphs and random weights that several tests of surgery need."""

from __future__ import annotations

import numpy as np
import onnx

from tests.surgery.oracle import model

SEED = 11
RANDOM = np.random.default_rng(SEED)


def restart() -> None:
    """Begin the random numbers anew, so that a test has the same ones in whatever order tests run."""
    RANDOM.bit_generator.state = np.random.default_rng(SEED).bit_generator.state


def normal(*shape: int) -> np.ndarray:
    """The next random numbers, of this shape."""
    return RANDOM.standard_normal(shape, np.float32)


def attention(heads: int, width: int, tokens: str, *, computed: bool, fused: bool) -> onnx.ModelProto:
    """Attention written out, as exporters write it."""
    hidden = heads * width
    if computed:
        split = (
            "sh = Shape(x) n = Slice(sh, zero, one) t = Slice(sh, one, two) "
            "heads = Concat<axis=0>(n, t, h, d) merged = Concat<axis=0>(n, t, hd)"
        )
        constants = {
            "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]),
            "h": np.array([heads]), "d": np.array([width]), "hd": np.array([hidden]),
        }  # fmt: skip
    else:
        split, constants = "", {"heads": np.array([0, -1, heads, width]), "merged": np.array([0, -1, hidden])}
    if fused:
        project = "a = MatMul(x, wqkv) b = Add(a, bqkv) q, k, v = Split<axis=-1>(b)"
        weights = {"wqkv": normal(6, 3 * hidden), "bqkv": normal(3 * hidden)}
    else:
        project = """q0 = MatMul(x, wq) q = Add(q0, bq) k0 = MatMul(x, wk) k = Add(k0, bk)
            v0 = MatMul(x, wv) v = Add(v0, bv)"""
        weights = {f"w{name}": normal(6, hidden) for name in "qkv"} | {
            f"b{name}": normal(hidden) for name in "qkv"
        }
    return model(
        f"""(float[N,{tokens},6] x) => (float[N,{tokens},6] y) {{
            {split} {project}
            q4 = Reshape(q, heads) k4 = Reshape(k, heads) v4 = Reshape(v, heads)
            qt = Transpose<perm=[0,2,1,3]>(q4) kt = Transpose<perm=[0,2,3,1]>(k4) vt = Transpose<perm=[0,2,1,3]>(v4)
            qs = Mul(qt, scale) s = MatMul(qs, kt) p = Softmax<axis=-1>(s) o = MatMul(p, vt)
            ot = Transpose<perm=[0,2,1,3]>(o) m = Reshape(ot, merged) z = MatMul(m, wo) y = Add(z, bo)}}""",
        scale=np.array(width**-0.5, np.float32), wo=normal(hidden, 6), bo=normal(6), **weights, **constants,
    )  # fmt: skip


def recurrent(op_type: str, directions: int, initial: str) -> onnx.ModelProto:
    """Two layers: the first one's sequence is what the second reads, whose last state feeds a Gemm."""
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type], 8
    direction = 'direction="bidirectional", ' if directions == 2 else ""
    states = "h0, c0" if op_type == "LSTM" else "h0"
    if initial == "none":
        setup, states = "", ""
    elif initial == "computed":
        setup = """s = Shape(x) n = Slice(s, one, two) z = Concat<axis=0>(d, n, h) h0 = ConstantOfShape(z)
            c0 = ConstantOfShape(z)"""
    else:
        setup = "h0 = Identity(h1) c0 = Identity(c1)"
    peephole = ", p" if op_type == "LSTM" and initial == "constant" else ""
    weights = {
        "w": normal(directions, gates * hidden, 6), "r": normal(directions, gates * hidden, hidden),
        "b": normal(directions, 2 * gates * hidden), "p": normal(directions, 3 * hidden),
        "w2": normal(1, gates * 4, directions * hidden), "r2": normal(1, gates * 4, 4), "w3": normal(4, 5),
        "h1": normal(directions, 2, hidden), "c1": normal(directions, 2, hidden), "minus": np.array([0, 0, -1]),
        "one": np.array([1]), "two": np.array([2]), "d": np.array([directions]), "h": np.array([hidden]),
        "last": np.array([0]),
    }  # fmt: skip
    graph = f"""(float[7,2,6] x) => (float[2,5] y) {{
        {setup} a = {op_type}<{direction}hidden_size={hidden}>(x, w, r, b, , {states}{peephole})
        t = Transpose<perm=[0,2,1,3]>(a) f = Reshape(t, minus)
        e, g = {op_type}<hidden_size=4>(f, w2, r2) q = Squeeze(g, last) y = MatMul(q, w3)}}"""
    graph = graph.replace(", , )", ")").replace(", )", ")")
    used = {
        name: array for name, array in weights.items() if name in graph.replace("(", " ").replace(")", " ")
    }
    return model(graph, **used)

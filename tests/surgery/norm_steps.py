"""Steps of random graphs that normalize: in one operator or written out, beside residual streams, with a token more."""

from __future__ import annotations

import numpy as np

from tests.surgery.growing import LARGEST, Graph


def normalize(g: Graph) -> None:
    c = g.shape[1]
    if c > 1:
        g.node("Add", g.last, g.floats(c))
        g.node("LayerNormalization", g.last, g.positive(c), g.floats(c), epsilon=0.1)


def write_out_norm(g: Graph, axis: int) -> None:
    """A LayerNormalization over an axis in plain operators: subtracted, squared and divided in one way or another."""
    x, c = g.last, g.shape[axis - 1]
    if c < 2:
        return
    vector = (c, *[1] * (len(g.shape) - axis))
    x = g.node("Add", x, g.floats(*vector))[0]
    mean = g.node("ReduceMean", x, axes=[axis], keepdims=1)[0]
    less = g.node("Sub", x, mean)[0]
    squared = g.node(*g.pick(("Mul", less, less), ("Pow", less, g.constant(np.float32(2)))))[0]
    g.node("ReduceMean", squared, axes=[g.pick(axis, axis - len(g.shape) - 1)], keepdims=1)
    g.node("Add", g.last, g.constant(np.float32(0.1)))
    root = g.node("Sqrt", g.last)[0]
    if g.rng.random() < 0.3:  # as tf2onnx
        inverse = g.node("Reciprocal", root)[0]
        scale = g.node("Mul", inverse, g.positive(*vector))[0]
        moved = g.node("Mul", mean, scale)[0]
        behind = g.node("Sub", g.floats(*vector), moved)[0]
        g.node("Mul", x, scale)
        g.node("Add", g.last, behind)
        return
    less = g.node("Sub", x, mean)[0] if g.rng.random() < 0.3 else less
    if g.rng.random() < 0.5:
        g.node("Div", less, root)
    else:
        g.node("Reciprocal", root)
        g.node("Mul", less, g.last)
    if g.rng.random() < 0.8:
        g.node("Mul", g.last, g.positive(*vector))
        g.node("Add", g.floats(*vector), g.last)


def normalize_channels(g: Graph) -> None:
    write_out_norm(g, 1)


def normalize_written_out(g: Graph) -> None:
    write_out_norm(g, 2)


def block(g: Graph) -> None:
    """A residual stream: a projection beside what it reads, a norm in front of it or behind the sum."""
    before, c = g.last, g.shape[1]
    if c < 2:
        return
    norm = g.pick(normalize, normalize_written_out)
    first = g.rng.random() < 0.5
    if first:
        norm(g)
    g.node("MatMul", g.last, g.weight(c, 5, out=1, into=0))
    g.node("Relu", g.last)
    g.node("MatMul", g.last, g.weight(5, c, out=1, into=0))
    if not first and g.rng.random() < 0.5:
        vectors = [g.positive(c), g.floats(c), *([g.floats(c)] if g.rng.random() < 0.5 else [])]
        spread = g.node("Add", before, g.floats(c))[0]
        out, _, _, total = g.node(
            "SkipLayerNormalization", g.last, spread, *vectors, outputs=4, domain="com.microsoft", epsilon=0.1
        )
        g.last = g.node("Add", out, total)[0] if g.rng.random() < 0.3 else out
        return
    g.node("Add", before, g.last)
    if not first:
        norm(g)


def add_token(g: Graph) -> None:
    """Behind or in front of all others, and a table of places for all."""
    t, c = g.shape
    if t >= LARGEST:
        return
    batch = g.pick("computed", "known") if g.batch != "N" else "computed"
    if batch == "computed":
        shape = g.node("Shape", g.last, end=1)
        before, sizes = g.nodes[-1].input[0], g.node("Concat", shape[0], g.integers(1, c), axis=0)[0]
    else:
        before, sizes = g.last, g.integers(g.batch, 1, c)
    token = g.node("Expand", g.floats(1, 1, c), sizes)[0]
    g.node("Concat", *g.pick((before, token), (token, before)), axis=1)
    g.node("Add", g.last, g.floats(t + 1, c))
    g.shape = (t + 1, c)

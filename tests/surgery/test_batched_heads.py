"""Attention whose heads are one axis with the batch, its sizes computed, as tf2onnx writes the einsums of Keras."""

from __future__ import annotations

import numpy as np
import onnx

from tests.surgery.graphs import normal
from tests.surgery.oracle import model, prune_channels, weight_of


def batched_heads() -> onnx.ModelProto:
    """Queries, keys and values with biases of (heads, width); 12 tokens, 4 heads of 8."""
    sides = "".join(
        f"""{n}0 = MatMul(e, w{n}) {n}1 = Reshape({n}0, split) {n}2 = Add({n}1, b{n})
        {n}t = Transpose<perm={perm}>({n}2) {n}s = Shape({n}t) {n}f = Gather({n}s, front)
        {n}p = ReduceProd<axes=[0]>({n}f) {n}l = Gather({n}s, three) {n}k = Concat<axis=0>({n}p, minus, {n}l)
        {n}r = Reshape({n}t, {n}k) """
        for n, perm in (("q", "[0,2,1,3]"), ("k", "[0,2,1,3]"), ("v", "[0,2,3,1]"))
    )
    weights = {f"w{n}": normal(6, 32) for n in "qkv"} | {f"b{n}": normal(4, 8) for n in "qkv"}
    return model(
        f"""(float[N,12,5] x) => (float[N,12,3] y) {{
            e = MatMul(x, we) {sides} kT = Transpose<perm=[0,2,1]>(kr) s = MatMul(qr, kT) p = Softmax<axis=-1>(s)
            vT = Transpose<perm=[0,2,1]>(vr) o = MatMul(p, vT) wide = Gather(vs, two) long = Gather(qs, two)
            m = Concat<axis=0>(vf, long, wide) h = Reshape(o, m) t = Transpose<perm=[0,2,1,3]>(h) j = Reshape(t, joined)
            y = MatMul(j, wo)}}""",
        we=normal(5, 6), wo=normal(32, 3), split=np.array([-1, 12, 4, 8]), front=np.array([0, 1]),
        two=np.array([2]), three=np.array([3]), minus=np.array([-1]), joined=np.array([-1, 12, 32]), **weights,
    )  # fmt: skip


def test_parts_of_heads_that_are_one_axis_with_the_batch_can_go() -> None:
    pruned = prune_channels(batched_heads(), alone=False)
    assert not {
        name: count for name, count in pruned.choice.stuck.items() if name in ("wq", "wk", "wv", "wo")
    }
    assert all(weight_of(pruned.model, name).shape[1] < 32 for name in ("wq", "wk", "wv"))
    assert weight_of(pruned.model, "wo").shape[0] < 32

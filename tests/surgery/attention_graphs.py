"""Attention as one operator between projections: with pasts, masks, shared heads, and in three or four axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.surgery.oracle import model

Graph = tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]
TOKENS, WIDTH, HEAD = 5, 32, 8
ONE_MORE = 6  # tokens with one of the past
LAST = "total = Constant<value = int32 {5}>() last = Constant<value = int32[2] {4, 4}>()"


def _weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        for name, shape in shapes.items()
    }


def _projected(
    attention: str, heads: int = 8, shared: int = 8, *, opset: int = 17, more: str = "", outs: str = "",
    size: int = HEAD, given: dict[str, tuple[int, ...]] | None = None, **others: np.ndarray,
) -> Graph:  # fmt: skip
    """x to queries, keys and values, `attention` of them to a, and a projection."""
    weights = _weights(
        wq=(WIDTH, heads * size), wk=(WIDTH, shared * size), wv=(WIDTH, shared * size), bq=(heads * size,),
        bk=(shared * size,), bv=(shared * size,), wo=(heads * size, WIDTH),
    )  # fmt: skip
    proto = model(
        f"""(float[2,{TOKENS},{WIDTH}] x{more}) => (float[2,{TOKENS},{WIDTH}] y{outs}) {{
            q0 = MatMul(x, wq) q = Add(q0, bq) k0 = MatMul(x, wk) k = Add(k0, bk) v0 = MatMul(x, wv)
            v = Add(v0, bv) {attention} y = MatMul(a, wo)}}""",
        opset=opset, ir_version=8 if opset < 23 else 11, **weights, **others,
    )  # fmt: skip
    return proto, {"x": (2, TOKENS, WIDTH), **(given or {})}


def _four_axes(heads: int, shared: int, attention: str) -> str:
    """Heads on an axis of their own before the operator, and joined after it."""
    return f"""q3 = Reshape(q, split) k3 = Reshape(k, split2) v3 = Reshape(v, split2)
        q4 = Transpose<perm=[0,2,1,3]>(q3) k4 = Transpose<perm=[0,2,1,3]>(k3) v4 = Transpose<perm=[0,2,1,3]>(v3)
        {attention} a3 = Transpose<perm=[0,2,1,3]>(a4) a = Reshape(a3, joined)"""


def _shapes(heads: int, shared: int) -> dict[str, np.ndarray]:
    return {
        "split": np.array([0, 0, heads, -1]), "split2": np.array([0, 0, shared, -1]),
        "joined": np.array([0, 0, -1]),
    }  # fmt: skip


def packed() -> Graph:
    """com.microsoft Attention."""
    weights = _weights(w=(WIDTH, 3 * 64), b=(3 * 64,), wo=(64, WIDTH))
    proto = model(
        f"""(float[2,{TOKENS},{WIDTH}] x) => (float[2,{TOKENS},{WIDTH}] y) {{
            a = com.microsoft.Attention<num_heads=8>(x, w, b) y = MatMul(a, wo)}}""",
        **weights,
    )
    return proto, {"x": (2, TOKENS, WIDTH)}


def multi_head(*, past: bool = False, bias: bool = False) -> Graph:
    """com.microsoft MultiHeadAttention."""
    if not past:
        rest = ", , , pb" if bias else ""
        return _projected(
            f"a = com.microsoft.MultiHeadAttention<num_heads=8>(q, k, v{rest})",
            **({"pb": np.zeros((1, 8, TOKENS, TOKENS), np.float32)} if bias else {}),
        )
    cache, longer = "float[2,8,1,8]", f"float[2,8,{ONE_MORE},8]"
    return _projected(
        "a, pk, pv = com.microsoft.MultiHeadAttention<num_heads=8>(q, k, v, , , , k1, v1)",
        more=f", {cache} k1, {cache} v1", outs=f", {longer} pk, {longer} pv",
        given=dict.fromkeys(("k1", "v1"), (2, 8, 1, 8)),
    )  # fmt: skip


def grouped(*, past: bool = False, rotary: bool = False) -> Graph:
    """com.microsoft GroupQueryAttention: eight query heads on two key heads."""
    size = 16 if rotary else HEAD
    angles = _weights(cos=(8, size // 2), sin=(8, size // 2)) if rotary else {}
    table = ", cos, sin" if rotary else ""
    setting = "num_heads=8, kv_num_heads=2" + (", do_rotary=1" if rotary else "")
    if not past:
        attention = f"{LAST} a, pk, pv = com.microsoft.GroupQueryAttention<{setting}>(q, k, v, , , last, total{table})"
        return _projected(attention, 8, 2, size=size, **angles)
    cache = f"float[2,2,{TOKENS},{size}]"
    attention = f"{LAST} a, pk, pv = com.microsoft.GroupQueryAttention<{setting}>(q, k, v, k1, v1, last, total{table})"
    return _projected(
        attention, 8, 2, size=size, more=f", {cache} k1, {cache} v1", outs=f", {cache} pk, {cache} pv",
        given=dict.fromkeys(("k1", "v1"), (2, 2, TOKENS, size)), **angles,
    )  # fmt: skip


def standard(shared: int = 8, *, opset: int = 23, mask: bool = False) -> Graph:
    """ONNX Attention of three axes."""
    rest = ", mask" if mask else ""
    masks = {"mask": np.zeros((1, 8, TOKENS, TOKENS), np.float32)} if mask else {}
    attention = f"a = Attention<q_num_heads=8, kv_num_heads={shared}>(q, k, v{rest})"
    return _projected(attention, 8, shared, opset=opset, **masks)


def standard_four(shared: int = 8, *, opset: int = 23, past: bool = False) -> Graph:
    """ONNX Attention of four axes."""
    attention = _four_axes(8, shared, "a4 = Attention(q4, k4, v4)")
    if not past:
        return _projected(attention, 8, shared, opset=opset, **_shapes(8, shared))
    cache, longer = f"float[2,{shared},1,{HEAD}]", f"float[2,{shared},{ONE_MORE},{HEAD}]"
    return _projected(
        _four_axes(8, shared, "a4, pk, pv = Attention(q4, k4, v4, , k1, v1)"), 8, shared, opset=opset,
        more=f", {cache} k1, {cache} v1", outs=f", {longer} pk, {longer} pv",
        given=dict.fromkeys(("k1", "v1"), (2, shared, 1, HEAD)), **_shapes(8, shared),
    )  # fmt: skip


GRAPHS: dict[str, Callable[[], Graph]] = {
    "Attention (com.microsoft)": packed,
    "MultiHeadAttention (com.microsoft)": multi_head,
    "MultiHeadAttention with a position bias": lambda: multi_head(bias=True),
    "MultiHeadAttention with a past": lambda: multi_head(past=True),
    "GroupQueryAttention (com.microsoft)": grouped,
    "GroupQueryAttention, rotary": lambda: grouped(rotary=True),
    "GroupQueryAttention with a past": lambda: grouped(past=True, rotary=True),
    "Attention-23 of three axes, a mask per head": lambda: standard(mask=True),
    "Attention-24 of three axes, 8 heads on 2": lambda: standard(2, opset=24),
    "Attention-23 of four axes": standard_four,
    "Attention-24 of four axes, 8 heads on 2": lambda: standard_four(2, opset=24),
    "Attention-24 of four axes with a past": lambda: standard_four(2, opset=24, past=True),
}

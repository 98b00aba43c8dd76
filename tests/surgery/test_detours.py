"""Transpositions by way of fewer axes, which torch.onnx (dynamo=True) writes for the keys of attention."""

from __future__ import annotations

import numpy as np
import onnx

from tests.surgery.graphs import normal
from tests.surgery.oracle import model, prune_channels, weight_of

NUMBERS = {
    "first": np.array([0]), "two": np.array([2]), "three": np.array([3]), "four": np.array([4]),
    "minus": np.array([-1]), "scale": np.array(0.5, np.float32),
}  # fmt: skip
SPLIT = "Concat<axis=0>(front, width, long)"


def attention(*, split: str = SPLIT, cached: bool = False, **constants: np.ndarray) -> onnx.ModelProto:
    """Four query heads of 6 on two key heads, each repeated; `cached`: the keys and values before come from outside."""
    past = ", float[N,2,P,6] pk, float[N,2,P,6] pv" if cached else ""
    sides = "".join(
        f"{n}0 = MatMul(x, w{n}) {n}1 = Reshape({n}0, {n}heads) {n}2 = Transpose<perm=[0,2,1,3]>({n}1) "
        for n in "qkv"
    )
    joined = "".join(
        f"{n}3 = Concat<axis=2>(p{n}, {n}2) " if cached else f"{n}3 = Identity({n}2) " for n in "kv"
    )
    repeated = "".join(
        f"{n}4 = Unsqueeze({n}3, two) {n}5 = Tile({n}4, twice) {n}6 = Reshape({n}5, grouped) " for n in "kv"
    )
    return model(
        f"""(float[N,T,8] x{past}) => (float[N,T,5] y) {{ {sides} {joined} {repeated}
            sh = Shape(k6) front = Slice(sh, first, two) long = Slice(sh, two, three) width = Slice(sh, three, four)
            there = Concat<axis=0>(minus, long, width) m = Reshape(k6, there) t = Transpose<perm=[0,2,1]>(m)
            back = {split} kt = Reshape(t, back) ks = Mul(kt, scale) s = MatMul(q2, ks) p = Softmax<axis=-1>(s)
            o = MatMul(p, v6) ot = Transpose<perm=[0,2,1,3]>(o) j = Reshape(ot, flat) y = MatMul(j, wo)}}""",
        wq=normal(8, 24), wk=normal(8, 12), wv=normal(8, 12), wo=normal(24, 5), **NUMBERS,
        qheads=np.array([0, 0, 4, 6]), kheads=np.array([0, 0, 2, 6]), vheads=np.array([0, 0, 2, 6]),
        twice=np.array([1, 1, 2, 1, 1]), grouped=np.array([0, 4, -1, 6]), flat=np.array([0, 0, 24]), **constants,
    )  # fmt: skip


def test_heads_that_are_merged_with_the_batch_on_a_detour_can_go_and_the_detour_with_them() -> None:
    pruned = prune_channels(attention(), 0.5, alone=False)
    assert not pruned.choice.stuck.keys() & {"wq", "wk", "wv"}
    assert weight_of(pruned.model, "wq").shape[1] < 24
    perms = [node.attribute[0].ints for node in pruned.model.graph.node if node.op_type == "Transpose"]
    assert [0, 1, 3, 2] in perms and [0, 2, 1] not in perms


def test_query_heads_go_where_the_keys_are_cached() -> None:
    pruned = prune_channels(attention(cached=True), 0.4, alone=False)
    assert weight_of(pruned.model, "wk").shape == (8, 12)
    assert weight_of(pruned.model, "wq").shape[1] == weight_of(pruned.model, "wo").shape[0] == 12


def perms_after(target: list[int]) -> list[list[int]]:
    """Of a model whose 4 heads of 6 are merged with the batch, transposed and then made of this size: all that goes."""
    proto = model(
        """(float[N,8,5] x) => (float[N,3] y) {
            a = MatMul(x, w) r = Reshape(a, heads) h = Transpose<perm=[0,2,1,3]>(r) m = Reshape(h, merged)
            t = Transpose<perm=[0,2,1]>(m) b = Reshape(t, target) f = Reshape(b, flat) y = MatMul(f, w2)}""",
        w=normal(5, 24), w2=normal(192, 3), heads=np.array([0, 8, 4, 6]), merged=np.array([-1, 8, 6]),
        target=np.array(target), flat=np.array([-1, 192]),
    )  # fmt: skip
    pruned = prune_channels(proto, 0.5, alone=False).model
    return [list(node.attribute[0].ints) for node in pruned.graph.node if node.op_type == "Transpose"]


def test_only_what_is_split_as_it_was_is_a_detour() -> None:
    assert perms_after([-1, 4, 6, 8]) == [[0, 2, 1, 3], [0, 1, 3, 2]]
    assert all([0, 1, 3, 2] not in perms_after(target) for target in ([-1, 4, 8, 6], [-1, 2, 12, 8]))

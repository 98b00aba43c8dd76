"""Reads of a flattened value at all of its positions in order, and at others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.surgery.graphs import normal
from tests.surgery.oracle import model, prune_channels, weight_of


def pooled(places: str, *, batch: str = "N", **constants: np.ndarray) -> onnx.ModelProto:
    """A convolution, the mean of each channel, read as as_strided at `places`, and a norm and a product of it."""
    return model(
        f"""(float[{batch},3,6,6] x) => (float[{batch},5] y) {{
            a = Conv(x, w1) m = ReduceMean<axes=[2,3]>(a) f = Reshape(m, minus) {places}
            g = Gather(f, p) h = Reshape(g, rows) n = LayerNormalization(h, scale, bias) y = MatMul(n, w2)}}""",
        w1=normal(8, 3, 3, 3), w2=normal(8, 5), scale=normal(8), bias=normal(8), minus=np.array([-1]),
        rows=np.array([-1, 8]), **constants,
    )  # fmt: skip


NUMBERS = {
    "zero": np.array(0), "one": np.array(1), "first": np.array([0]), "second": np.array([1]),
    "axes": np.array([1, 2, 3]), "columns": np.arange(8).reshape(1, 8, 1, 1),
    "nothing": np.zeros((1, 1, 1, 1), np.int64),
}  # fmt: skip
RANGE = """s = Shape(x) t = Slice(s, first, second) n0 = Squeeze(t) r = Range(zero, n0, one) k = Mul(r, step)
    u = Unsqueeze(k, axes) v = Add(u, columns) p = Add(v, nothing)"""


def test_a_read_of_all_positions_in_order_passes_channels_and_goes() -> None:
    pruned = prune_channels(pooled(RANGE, step=np.array(8), **NUMBERS))
    assert weight_of(pruned.model, "w1").shape[0] < 8 and weight_of(pruned.model, "w2").shape[0] < 8
    assert {node.op_type for node in pruned.model.graph.node}.isdisjoint({"Gather", "Range"})


def test_a_read_by_constant_places_passes_channels() -> None:
    places = np.arange(16).reshape(2, 8, 1, 1)
    pruned = prune_channels(pooled("p = Identity(q)", batch="2", q=places))
    assert weight_of(pruned.model, "w1").shape[0] < 8


@pytest.mark.parametrize("change", ["step", "columns", "nothing"])
def test_a_read_in_another_order_keeps_all_channels(change: str) -> None:
    other = {"step": np.array(4), "columns": NUMBERS["columns"][:, ::-1], "nothing": NUMBERS["nothing"] - 1}
    numbers = {**NUMBERS, "step": np.array(8), change: other[change]}
    pruned = prune_channels(pooled(RANGE, **numbers))
    assert weight_of(pruned.model, "w1").shape[0] == 8

"""Attention as one operator: without some of its heads or of their width, it says what it says with them at zero."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from onnxprune.surgery import remove_dead_units, unit_groups, zero_units
from tests.surgery.attention_graphs import GRAPHS, standard, standard_four
from tests.surgery.channel_pruning import free_share, prune_channels
from tests.surgery.graphs import normal
from tests.surgery.oracle import assert_same, model
from tests.surgery.oracle import prune_channels as prune

# Keys and values that a caller caches stay.
SHARES = {
    "MultiHeadAttention with a past": 0.0,
    "GroupQueryAttention with a past": 0.8,
    "Attention-24 of four axes with a past": 0.8,
}


@pytest.mark.parametrize("name", GRAPHS)
def test_heads_and_their_width_are_removed_in_every_spelling(name: str) -> None:
    proto, shapes = GRAPHS[name]()
    assert free_share(ir.from_proto(proto))[0] == pytest.approx(SHARES.get(name, 1.0))
    row = prune_channels((proto, shapes), 0.5)
    assert row.difference <= 1e-5
    left = 1 - 0.5 * SHARES.get(name, 1.0)
    assert row.parameters_after == pytest.approx(
        left * row.parameters_before, abs=0.13 * row.parameters_before
    )


@pytest.mark.parametrize("graph", [standard(), standard_four()])
def test_the_scale_of_the_input_model_stays_when_heads_become_narrower(graph: tuple) -> None:
    model = ir.from_proto(graph[0])
    groups = unit_groups(model)
    narrower = [
        index
        for index, group in enumerate(groups.positions)
        if ("wq", 1) in group
        and len(group["wq", 1]) == 8
        and ("wo", 0) not in group
        and group["wq", 1][1] != 1
    ]
    assert len(narrower) == 8, "one group a place in the head, of queries and keys alone"
    zero_units(model, groups, narrower[:2])
    zeroed = ir.to_proto(model)
    remove_dead_units(model)
    after = ir.to_proto(model)
    assert_same(zeroed, after, 1e-5)
    (node,) = (node for node in after.graph.node if node.op_type == "Attention")
    scale = next(attribute.f for attribute in node.attribute if attribute.name == "scale")
    assert scale == pytest.approx(8**-0.5)


def test_with_a_past_the_same_query_heads_of_every_group_go() -> None:
    proto, _ = GRAPHS["GroupQueryAttention with a past"]()
    groups = unit_groups(ir.from_proto(proto))
    heads = {tuple(group["wq", 1][::16] // 16) for group in groups.positions}
    assert heads == {(0, 4), (1, 5), (2, 6), (3, 7)}


def test_queries_keys_and_values_in_one_array_lose_whole_groups_of_heads() -> None:
    pruned = prune(
        model(
            """(float[2,5,6] x) => (float[2,5,6] y) {
                total = Constant<value = int32 {5}>() last = Constant<value = int32[2] {4, 4}>() q = MatMul(x, w)
                a, k, v = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(q, , , , , last, total)
                y = MatMul(a, wo)}""",
            w=normal(6, 64), wo=normal(32, 6),
        )
    )  # fmt: skip
    weights = {tensor.name: tuple(tensor.dims) for tensor in pruned.model.graph.initializer}
    assert weights["w"] == (6, 32) and weights["wo"] == (16, 6)
    (node,) = (node for node in pruned.model.graph.node if node.op_type == "GroupQueryAttention")
    counts = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert counts["num_heads"] == 2 and counts["kv_num_heads"] == 1


@pytest.mark.parametrize(("domain", "opset"), [("", 23), ("com.microsoft.", 17)])
def test_a_rotation_passes_whole_heads(domain: str, opset: int) -> None:
    given = "q3, cos, sin, p" if not domain else "q3, p, cos, sin"
    pruned = prune(
        model(
            f"""(float[2,5,6] x) => (float[2,5,6] y) {{
                p = Constant<value = int64[2,5] {{0,1,2,3,4,0,1,2,3,4}}>() q3 = MatMul(x, wq)
                q = {domain}RotaryEmbedding<num_heads=4>({given}) k = MatMul(x, wk) v = MatMul(x, wv)
                a = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v) y = MatMul(a, wo)}}""",
            opset=opset, ir_version=10, wq=normal(6, 32), wk=normal(6, 32), wv=normal(6, 32), wo=normal(32, 6),
            cos=normal(8, 4), sin=normal(8, 4),
        )
    )  # fmt: skip
    weights = {tensor.name: tuple(tensor.dims) for tensor in pruned.model.graph.initializer}
    assert weights["wq"] == weights["wk"] and weights["wq"][1] in (8, 16, 24)

"""Whole channels, case by case: a model without them says what it says with them at zero, or they are frozen."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.surgery import unit_groups
from tests.surgery.graphs import RANDOM, attention, normal, recurrent
from tests.surgery.oracle import Pruned, model, prune_channels, weight_of


def shape_of(pruned: Pruned, name: str) -> tuple[int, ...]:
    return weight_of(pruned.model, name).shape


def frozen(pruned: Pruned, name: str) -> str:
    """Why none of the units of a weight can go."""
    return next(layer.frozen for layer in pruned.report.layers if layer.name == name) or ""


def test_transposed_convolutions_lose_channels_on_both_sides() -> None:
    pruned = prune_channels(
        model(
            """(float[N,3,5,5] x) => (float[N,2,9,9] y) {
                a = Conv(x, w1, b1) r = Relu(a) b = ConvTranspose<strides=[2,2]>(r, w2, b2) s = Relu(b)
                y = Conv(s, w3)}""",
            w1=normal(8, 3, 1, 1), b1=normal(8), w2=normal(8, 6, 2, 2), b2=normal(6), w3=normal(2, 6, 2, 2),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w2")[0] < 8 and shape_of(pruned, "w2")[1] < 6


def test_grouped_transposed_convolutions_lose_whole_groups() -> None:
    pruned = prune_channels(
        model(
            """(float[N,3,5,5] x) => (float[N,2,9,9] y) {
                a = Conv(x, w1, b1) b = ConvTranspose<strides=[2,2], group=4>(a, w2, b2) y = Conv(b, w3)}""",
            w1=normal(8, 3, 1, 1), b1=normal(8), w2=normal(8, 3, 2, 2), b2=normal(12), w3=normal(2, 12, 2, 2),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w2") == (4, 3, 2, 2) and shape_of(pruned, "w3")[1] == 6


def test_cascaded_concats_pass_channels_at_their_offsets() -> None:
    pruned = prune_channels(
        model(
            """(float[N,3,5,5] x) => (float[N,2] y) {
                a = Conv(x, w1) b = Conv(x, w2) c = Concat<axis=1>(a, b) d = Conv(c, w3)
                e = Concat<axis=1>(c, d, x) f = Flatten(e) y = Gemm<transB=1>(f, w4)}""",
            w1=normal(4, 3, 1, 1), w2=normal(6, 3, 1, 1), w3=normal(4, 10, 1, 1), w4=normal(2, 17 * 25),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] < 4 and shape_of(pruned, "w2")[0] < 6 and shape_of(pruned, "w3")[0] < 4


@pytest.mark.parametrize(
    ("opset", "split"),
    [
        (17, "p, q = Split<axis=1>(a)"),
        (18, "p, q = Split<axis=1, num_outputs=2>(a)"),
        (17, "p, q = Split<axis=1>(a, sizes)"),
        (11, "p, q = Split<axis=1, split=[3,5]>(a)"),
        (11, "p, q = Split<axis=1>(a)"),
    ],
)
@pytest.mark.parametrize("join", ["Concat<axis=1>(q, p)", "Mul(p, s)"])
def test_splits_even_and_uneven_and_gated_pass_channels(opset: int, split: str, join: str) -> None:
    uneven = "sizes" in split or "3,5" in split
    if uneven and "Mul" in join:
        split = split.replace("3,5", "4,4")
    sizes = np.array([4, 4] if "Mul" in join else [3, 5])
    width = 4 if "Mul" in join else 8
    pruned = prune_channels(
        model(
            f"""(float[N,3] x) => (float[N,2] y) {{
                a = MatMul(x, w1) {split} s = Sigmoid(q) j = {join} y = MatMul(j, w2)}}""",
            opset=opset, w1=normal(3, 8), w2=normal(width, 2), **({"sizes": sizes} if "sizes" in split else {}),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[1] < 8 and shape_of(pruned, "w2")[0] < width


def test_a_split_that_becomes_uneven_names_its_sizes() -> None:
    w1 = normal(3, 8)
    w1[:, :3] *= 0.01
    pruned = prune_channels(
        model(
            """(float[N,3] x) => (float[N,2] y) {
                a = MatMul(x, w1) p, q = Split<axis=1, num_outputs=2>(a) s = Tanh(p) t = Tanh(q)
                u = MatMul(s, w2) v = MatMul(t, w3) y = Add(u, v)}""",
            opset=18, w1=w1, w2=normal(4, 2), w3=normal(4, 2),
        ), 0.4, allocation="global",
    )  # fmt: skip
    assert shape_of(pruned, "w2") != shape_of(pruned, "w3")


@pytest.mark.parametrize(
    ("node", "left", "constants"),
    [
        ("Slice(a, starts, ends, axes)", 5, {"starts": [2], "ends": [-1], "axes": [1]}),
        ("Slice(a, starts, ends, axes)", 8, {"starts": [1], "ends": [2**62], "axes": [2]}),
        ("Gather<axis=1>(a, order)", 4, {"order": [7, 2, 2, -3]}),
        ("Pad(a, pads)", 11, {"pads": [0, 1, 0, 0, 2, 0]}),
        ("Pad(a, pads)", 8, {"pads": [0, 0, 1, 0, 0, 1]}),
        ('Pad<mode="reflect">(a, pads)', 8, {"pads": [0, 0, 1, 0, 0, 1]}),
        ("Expand(a, shape)", 8, {"shape": [1, 8, 1]}),
        ("Tile(a, repeats)", 8, {"repeats": [1, 1, 2]}),
        ("CumSum(a, axis)", 8, {"axis": 2}),
    ],
)
def test_operators_that_pick_and_pad_positions_pass_them(
    node: str, left: int, constants: dict[str, list[int]]
) -> None:
    pruned = prune_channels(
        model(
            f"(float[N,3,6] x) => (float[N,2] y) {{a = Conv(x, w1) r = {node} g = GlobalMaxPool(r) f = Flatten(g) "
            "y = MatMul(f, w2)}",
            w1=normal(8, 3, 1), w2=normal(left, 2), **{name: np.array(array) for name, array in constants.items()},
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] < 8 and shape_of(pruned, "w2")[0] < left


def test_a_slice_with_steps_is_frozen_where_it_steps() -> None:
    pruned = prune_channels(
        model(
            "(float[N,3,6] x) => (float[N,4,6] y) {a = Conv(x, w1) b = Slice(a, s, e, i, t) y = Conv(b, w2)}",
            w1=normal(8, 3, 1), w2=normal(4, 4, 1), s=np.array([0]), e=np.array([8]), i=np.array([1]), t=np.array([2]),
        )
    )  # fmt: skip
    assert "Slice" in frozen(pruned, "w1")


@pytest.mark.parametrize(
    ("opset", "node", "constants"),
    [
        (13, 'Resize<mode="nearest">(a, , scales)', {"scales": np.array([1, 1, 2, 2], np.float32)}),
        (13, 'Resize<mode="linear">(a, , , sizes)', {"sizes": np.array([2, 8, 9, 7])}),
        (9, "Upsample(a, scales)", {"scales": np.array([1, 1, 2, 2], np.float32)}),
        (13, "Resize(a, , , target)", {"space": np.array([9, 7]), "i": np.array([0]), "j": np.array([2])}),
    ],
)
def test_resizing_the_space_leaves_channels_free(
    opset: int, node: str, constants: dict[str, np.ndarray]
) -> None:
    shape = (
        "c = Shape(a) d = Slice(c, i, j) target = Concat<axis=0>(d, space)" if "space" in constants else ""
    )
    pruned = prune_channels(
        model(
            f"""(float[2,3,5,5] x) => (float[2,2,1,1] y) {{
                a = Conv(x, w1) {shape} b = {node} c2 = Conv(b, w2) y = GlobalAveragePool(c2)}}""",
            opset=opset, w1=normal(8, 3, 1, 1), w2=normal(2, 8, 1, 1), **constants,
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] < 8


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_takes_all_the_channels_that_weave_one(mode: str) -> None:
    pruned = prune_channels(
        model(
            f"""(float[N,3,4,4] x) => (float[N,2,8,8] y) {{
                a = Conv(x, w1, b1) b = DepthToSpace<blocksize=2, mode="{mode}">(a) r = Relu(b) y = Conv(r, w2)}}""",
            w1=normal(16, 3, 1, 1), b1=normal(16), w2=normal(2, 4, 1, 1),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] == 8 and shape_of(pruned, "w2")[1] == 2


def test_space_to_depth_makes_blocks_of_a_channel() -> None:
    pruned = prune_channels(
        model(
            """(float[N,3,4,4] x) => (float[N,2,2,2] y) {
                a = Conv(x, w1) b = SpaceToDepth<blocksize=2>(a) y = Conv(b, w2)}""",
            w1=normal(4, 3, 1, 1), w2=normal(2, 16, 1, 1),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] == 2 and shape_of(pruned, "w2")[1] == 8


def test_channel_shuffle_keeps_every_channel_in_its_place() -> None:
    pruned = prune_channels(
        model(
            """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
                a = Conv(x, w1) r = Relu(a) s = Reshape(r, split) t = Transpose<perm=[0,2,1,3,4]>(s)
                u = Reshape(t, whole) d = Conv<group=12, pads=[1,1,1,1]>(u, w2) y = Conv(d, w3)}""",
            w1=normal(12, 3, 1, 1), w2=normal(12, 1, 3, 3), w3=normal(2, 12, 1, 1),
            split=np.array([0, 2, 6, 4, 4]), whole=np.array([0, -1, 4, 4]),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] == 6
    assert shape_of(pruned, "w2")[0] == shape_of(pruned, "w3")[1] == 6


def test_group_normalization_loses_whole_groups() -> None:
    pruned = prune_channels(
        model(
            """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
                a = Conv(x, w1) g = GroupNormalization<num_groups=4>(a, s, b) r = Relu(g) y = Conv(r, w2)}""",
            opset=21, ir_version=10, w1=normal(12, 3, 1, 1), s=normal(12), b=normal(12),
            w2=normal(2, 12, 1, 1),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] == 6 and shape_of(pruned, "s")[0] == 6


def test_group_normalization_written_out_loses_whole_groups() -> None:
    pruned = prune_channels(
        model(
            """(float[2,3,4,4] x) => (float[2,2,4,4] y) {
                a = Conv(x, w1) f = Reshape(a, grouped) i = InstanceNormalization(f, s, b) g = Reshape(i, back)
                m = Mul(g, scale) r = Relu(m) y = Conv(r, w2)}""",
            w1=normal(12, 3, 1, 1), grouped=np.array([0, 4, -1]), s=normal(4), b=normal(4),
            back=np.array([2, 12, 4, 4]), scale=normal(12, 1, 1), w2=normal(2, 12, 1, 1),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] == 6 and shape_of(pruned, "s")[0] == 2


def test_channels_that_are_zero_leave_what_layer_normalization_is_taken_over() -> None:
    pruned = prune_channels(
        model(
            """(float[N,4,6] x) => (float[N,4,5] y) {
                a = MatMul(x, w1) n = LayerNormalization(a, s, b) h = MatMul(n, w2) r = Gelu(h) y = MatMul(r, w3)}""",
            opset=20, ir_version=9, w1=normal(6, 6), s=normal(6), b=normal(6), w2=normal(6, 8), w3=normal(8, 5),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[1] == shape_of(pruned, "w2")[0] < 6 and shape_of(pruned, "s") == (6,)
    assert shape_of(pruned, "w2")[1] < 8


@pytest.mark.parametrize("node", ["Softmax<axis=-1>(a)", "LpNormalization(a)", "CumSum(a, axis)"])
def test_operators_that_mix_a_hidden_axis_freeze_it(node: str) -> None:
    pruned = prune_channels(
        model(
            f"(float[N,6] x) => (float[N,5] y) {{a = MatMul(x, w1) s = {node} y = MatMul(s, w2)}}",
            w1=normal(6, 8), w2=normal(8, 5), axis=np.array(1),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1") == (6, 8) and node.split("<")[0].split("(")[0] in frozen(pruned, "w1")


@pytest.mark.parametrize("node", ["v, i = TopK(a, k)", "i = ArgMax<axis=-1>(a)"])
def test_positions_that_are_counted_stay(node: str) -> None:
    pruned = prune_channels(
        model(
            f"(float[N,6] x) => (float[N,5] y) {{a = MatMul(x, w1) {node} f = Cast<to=1>(i) m = Add(a, f) "
            "y = MatMul(m, w2)}",
            w1=normal(6, 1 if "TopK" in node else 8), w2=normal(1 if "TopK" in node else 8, 5), k=np.array([1]),
        )
    )  # fmt: skip
    assert pruned.choice.chosen.size == 0


@pytest.mark.parametrize("tokens", ["7", "T"])
@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_attention_written_out_loses_heads_and_width_inside_them(
    tokens: str, computed: bool, fused: bool
) -> None:
    proto = attention(4, 8, tokens, computed=computed, fused=fused)
    name = "wqkv" if fused else "wq"
    both = prune_channels(proto, 0.5)
    assert shape_of(both, name)[1] < weight_of(proto, name).shape[1]
    widths = {tuple(len(positions) for positions in group.values()) for group in both.groups.positions}
    assert len(both.groups.positions) == 4 + 8 + 8, (
        "heads; width of queries and keys; width of values",
        widths,
    )


MICROSOFT_ATTENTION = """(float[N,5,6] x) => (float[N,5,6] y) {
    a = com.microsoft.Attention<num_heads=4>(x, w, b) m = MatMul(a, wo) y = Add(m, bo)}"""


def test_fused_attention_loses_whole_heads() -> None:
    pruned = prune_channels(
        model(MICROSOFT_ATTENTION, w=normal(6, 96), b=normal(96), wo=normal(32, 6), bo=normal(6))
    )
    assert shape_of(pruned, "w") == (6, 48) and shape_of(pruned, "wo") == (16, 6)


def test_multi_head_attention_loses_whole_heads() -> None:
    pruned = prune_channels(
        model(
            """(float[N,5,6] x) => (float[N,5,6] y) {
                q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
                a = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v, b) y = MatMul(a, wo)}""",
            wq=normal(6, 32), wk=normal(6, 32), wv=normal(6, 16), b=normal(80), wo=normal(16, 6),
        )
    )  # fmt: skip
    assert (
        shape_of(pruned, "wq") == (6, 16)
        and shape_of(pruned, "wv") == (6, 8)
        and shape_of(pruned, "b") == (40,)
    )


@pytest.mark.parametrize("shared", [4, 2])
def test_onnx_attention_loses_whole_heads_with_those_that_they_share(shared: int) -> None:
    pruned = prune_channels(
        model(
            f"""(float[N,5,6] x) => (float[N,5,6] y) {{
                q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
                a = Attention<q_num_heads=4, kv_num_heads={shared}>(q, k, v) y = MatMul(a, wo)}}""",
            opset=23, ir_version=10, wq=normal(6, 32), wk=normal(6, 8 * shared), wv=normal(6, 8 * shared),
            wo=normal(32, 6),
        )
    )  # fmt: skip
    ratio = 4 // shared
    assert shape_of(pruned, "wq")[1] < 32 and shape_of(pruned, "wq")[1] == ratio * shape_of(pruned, "wk")[1]
    assert shape_of(pruned, "wo")[0] < 32 and shape_of(pruned, "wo")[0] == ratio * shape_of(pruned, "wv")[1]


def test_fused_convolutions_products_and_norms_are_pruned_as_their_plain_forms() -> None:
    pruned = prune_channels(
        model(
            """(float[N,3,4,4] x) => (float[N,5] y) {
                a = com.microsoft.FusedConv<activation="Relu">(x, w1, b1)
                b = com.microsoft.FusedConv<activation="Relu">(a, w2, b2, a)
                f = Flatten(b) g = com.microsoft.FusedGemm<activation="Relu", transB=1>(f, w3, b3)
                m = com.microsoft.FusedMatMul<alpha=0.5, transB=1>(g, w4) h = com.microsoft.FastGelu(m, b4)
                n = com.microsoft.SkipLayerNormalization(h, h, s, o) y = MatMul(n, w5)}""",
            w1=normal(8, 3, 1, 1), b1=normal(8), w2=normal(8, 8, 1, 1), b2=normal(8), w3=normal(12, 128),
            b3=normal(12), w4=normal(8, 12), b4=normal(8), s=normal(8), o=normal(8), w5=normal(8, 5),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] == shape_of(pruned, "w2")[0] == shape_of(pruned, "w2")[1] < 8
    assert shape_of(pruned, "w3")[0] < 12 and shape_of(pruned, "w4")[0] == 8


@pytest.mark.parametrize(
    ("equation", "second"),
    [("btc,cd->btd", (8, 5)), ("btc,dc->btd", (5, 8)), ("btc,chd->bthd", (8, 2, 5))],
)
def test_einsum_with_a_weight_is_a_product(equation: str, second: tuple[int, ...]) -> None:
    rest = "N,4,2,5" if len(second) == 3 else "N,4,5"
    pruned = prune_channels(
        model(
            f"""(float[N,4,6] x) => (float[{rest}] y) {{
                a = Einsum<equation="btc,cd->btd">(x, w1) r = Relu(a) y = Einsum<equation="{equation}">(r, w2)}}""",
            w1=normal(6, 8), w2=normal(*second),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[1] < 8


def test_attention_by_einsum_loses_heads() -> None:
    pruned = prune_channels(
        model(
            """(float[N,5,6] x) => (float[N,5,6] y) {
                q = Einsum<equation="btc,chd->bthd">(x, wq) k = Einsum<equation="btc,chd->bthd">(x, wk)
                v = Einsum<equation="btc,chd->bthd">(x, wv) s = Einsum<equation="bthd,bshd->bhts">(q, k)
                p = Softmax<axis=-1>(s) o = Einsum<equation="bhts,bshd->bthd">(p, v)
                y = Einsum<equation="bthd,hdc->btc">(o, wo)}""",
            wq=normal(6, 4, 8), wk=normal(6, 4, 8), wv=normal(6, 4, 8), wo=normal(4, 8, 6),
        )
    )  # fmt: skip
    assert shape_of(pruned, "wq")[1] < 4 or shape_of(pruned, "wq")[2] < 8


def test_an_einsum_that_leaves_axes_open_is_frozen() -> None:
    pruned = prune_channels(
        model(
            """(float[N,6] x) => (float[N,5] y) {
                a = MatMul(x, w1) b = Einsum<equation="...c,cd->...d">(a, w2) y = Relu(b)}""",
            w1=normal(6, 8), w2=normal(8, 5),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1") == (6, 8) and "Einsum" in frozen(pruned, "w1")


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("initial", ["none", "constant", "computed"])
def test_recurrent_layers_lose_hidden_units(op_type: str, directions: int, initial: str) -> None:
    pruned = prune_channels(recurrent(op_type, directions, initial))
    assert shape_of(pruned, "r")[2] < 8 and shape_of(pruned, "w2")[2] == directions * shape_of(pruned, "r")[2]
    assert shape_of(pruned, "r2")[2] < 4


def test_a_recurrent_state_that_a_caller_gives_freezes_the_layer() -> None:
    proto = model(
        """(float[7,2,6] x, float[1,2,8] h) => (float[7,2,5] y) {
            a = GRU<hidden_size=8>(x, w, r, , , h) t = Squeeze(a, one) y = MatMul(t, w2)}""",
        w=normal(1, 24, 6), r=normal(1, 24, 8), w2=normal(8, 5), one=np.array([1]),
    )  # fmt: skip
    pruned = prune_channels(proto)
    assert shape_of(pruned, "r") == (1, 24, 8) and pruned.choice.rate == 0


@pytest.mark.parametrize("op_type", ["GRU", "LSTM"])
def test_a_recurrent_state_of_unknown_size_freezes_the_layer(op_type: str) -> None:
    """A caller feeds it, so that no shape inference tells its size."""
    proto = model(
        f"""(float[7,2,6] x, float[N,M,K] h0) => (float[7,2,5] y) {{
            h = Identity(h0) a = {op_type}<hidden_size=8>(x, w, r, , , h) t = Squeeze(a, one) y = MatMul(t, w2)}}""",
        w=normal(1, 24 if op_type == "GRU" else 32, 6), r=normal(1, 24 if op_type == "GRU" else 32, 8),
        w2=normal(8, 5), one=np.array([1]),
    )  # fmt: skip
    groups = unit_groups(ir.from_proto(proto))
    assert not [at for group in groups.positions for at in group if at[0] in ("w", "r", "w2")]


@pytest.mark.parametrize("per_axis", [False, True])
def test_quantized_weights_lose_channels_with_their_scales(per_axis: bool) -> None:
    def scales(length: int) -> np.ndarray:
        return np.abs(normal(length)) / 50 if per_axis else np.array(0.02, np.float32)

    def points(length: int) -> np.ndarray:
        return RANDOM.integers(-9, 9, length if per_axis else (), np.int8)

    weights = {
        f"q{n}": RANDOM.integers(-99, 99, shape, np.int8)
        for n, shape in ((1, (8, 3, 1, 1)), (2, (4, 8, 1, 1)))
    }
    pruned = prune_channels(
        model(
            """(float[N,3,4,4] x) => (float[N,4,4,4] y) {
                w1 = DequantizeLinear<axis=0>(q1, s1, z1) w2 = DequantizeLinear<axis=0>(q2, s2, z2)
                a = Conv(x, w1) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) r = Relu(d)
                y = Conv(r, w2)}""",
            **weights, s1=scales(8), s2=scales(4), z1=points(8), z2=points(4), s=np.array(0.05, np.float32),
            z=np.array(0, np.int8),
        )
    )  # fmt: skip
    assert shape_of(pruned, "q1") == (4, 3, 1, 1) and shape_of(pruned, "q2") == (4, 4, 1, 1)


def test_units_of_both_branches_of_an_if_are_removed_together() -> None:
    pruned = prune_channels(
        model(
            """(float[N,5] x, bool flag) => (float[N,3] y) {
                h = Gemm<transB=1>(x, w1, b1)
                z = If(flag) <then_branch = then () => (a) {u = Gemm<transB=1>(h, w2) a = Tanh(u)},
                              else_branch = other () => (b) {b = Gemm<transB=1>(h, w3)}>
                y = Gemm<transB=1>(z, w4)}""",
            w1=normal(8, 5), b1=normal(8), w2=normal(6, 8), w3=normal(6, 8), w4=normal(3, 6),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w2") == shape_of(pruned, "w3") and shape_of(pruned, "w2")[0] < 6


def test_a_residual_that_meets_input_or_output_is_frozen() -> None:
    pruned = prune_channels(
        model(
            "(float[N,4,6,6] x) => (float[N,4,6,6] y) {d = Conv(x, w1) r = Relu(d) e = Conv(r, w2) y = Add(x, e)}",
            w1=normal(8, 4, 1, 1), w2=normal(4, 8, 1, 1),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w2")[0] == 4 and "graph" in frozen(pruned, "w2")


def test_a_bias_that_two_layers_share_does_not_bind_them() -> None:
    pruned = prune_channels(
        model(
            """(float[N,5] x) => (float[N,3] y) {
                h = Gemm<transB=1>(x, w1, b) r = Relu(h) g = Gemm<transB=1>(r, w2, b) s = Relu(g)
                y = Gemm<transB=1>(s, w3)}""",
            w1=normal(8, 5), b=normal(8), w2=normal(8, 8), w3=normal(3, 8),
        )
    )  # fmt: skip
    assert len(pruned.groups.positions) == 16


def test_round_to_and_min_channels_are_kept() -> None:
    proto = model(
        "(float[N,5] x) => (float[N,3] y) {h = Gemm<transB=1>(x, w1) r = Relu(h) y = Gemm<transB=1>(r, w2)}",
        w1=normal(20, 5), w2=normal(3, 20),
    )  # fmt: skip
    assert shape_of(prune_channels(proto, 0.5, round_to=8), "w1")[0] == 8
    assert shape_of(prune_channels(proto, 0.9, min_channels=6), "w1")[0] == 6
    assert shape_of(prune_channels(proto, 0.99), "w1")[0] == 1


def test_grouped_convolutions_behind_a_shuffle_lose_the_same_channels_of_each_group() -> None:
    pruned = prune_channels(
        model(
            """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
                a = Conv(x, w1) b = Conv<group=2>(a, w2, b2) s = Reshape(b, split) t = Transpose<perm=[0,2,1,3,4]>(s)
                u = Reshape(t, whole) d = Conv<group=16>(u, w3) e = Conv<group=2>(d, w4) y = Conv(e, w5)}""",
            w1=normal(8, 3, 1, 1), w2=normal(16, 4, 1, 1), b2=normal(16), w3=normal(16, 1, 1, 1),
            w4=normal(8, 8, 1, 1), w5=normal(2, 8, 1, 1), split=np.array([0, 2, 8, 4, 4]),
            whole=np.array([0, 16, 4, 4]),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w3")[0] < 16 and shape_of(pruned, "w4")[1] * 2 == shape_of(pruned, "w3")[0]


def test_overlapping_slices_are_rewritten_to_the_positions_that_stay() -> None:
    pruned = prune_channels(
        model(
            """(float[N,3] x) => (float[N,2] y) {
                a = MatMul(x, w1) p = Slice(a, i0, i6, i1) q = Slice(a, i3, i8, i1) u = MatMul(p, w2)
                v = MatMul(q, w3) y = Add(u, v)}""",
            w1=normal(3, 9), w2=normal(6, 2), w3=normal(5, 2),
            **{f"i{n}": np.array([n]) for n in (0, 1, 3, 6, 8)},
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[1] < 8


@pytest.mark.parametrize("opset", [13, 17])
def test_a_shortcut_that_is_padded_by_computed_pads_loses_channels(opset: int) -> None:
    pruned = prune_channels(
        model(
            """(float[1,3,8,8] x) => (float[1,4] y) {
                c0 = Conv<pads=[1,1,1,1]>(x, w0) r0 = Relu(c0)
                c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(r0, w1)
                s = Slice(r0, two_zeros, two_ends, places, two_twos)
                zeros = ConstantOfShape<value: tensor = int64[1] {0}>(two) flat = Concat<axis=0>(given, zeros)
                pairs = Reshape(flat, by_two) back = Slice(pairs, minus, least, zero, minus)
                turned = Transpose<perm=[1,0]>(back) list = Reshape(turned, minus) pads = Cast<to=7>(list)
                p = Pad(s, pads) a = Add(c1, p) r = Relu(a) g = GlobalAveragePool(r) f = Flatten(g)
                y = Gemm(f, w2)}""",
            opset=opset, w0=normal(16, 3, 3, 3), w1=normal(32, 16, 3, 3), w2=normal(32, 4),
            two_zeros=np.array([0, 0]), two_ends=np.array([99, 99]), places=np.array([2, 3]),
            two_twos=np.array([2, 2]), two=np.array([2]), given=np.array([0, 0, 0, 0, 8, 8]),
            by_two=np.array([-1, 2]), minus=np.array([-1]), least=np.array([-(2**31)]), zero=np.array([0]),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w0")[0] < 16 and shape_of(pruned, "w1")[0] < 32
    assert shape_of(pruned, "w2")[0] == shape_of(pruned, "w1")[0]


@pytest.mark.parametrize(
    "joined", ["j = Add(p, a)", "j = Where(yes, a, p)", "j = Concat<axis=0>(a, p)", "j = Max(a, p)"]
)
def test_channels_that_meet_a_value_of_unknown_size_are_frozen(joined: str) -> None:
    pruned = prune_channels(
        model(
            f"""(float[1,8,3,3] x) => (float[one,two,three,four] y) {{
                sum = ReduceSum<keepdims=0>(x) none = Mul(sum, nothing) zero = Cast<to=7>(none)
                pads = Expand(zero, eight) a = Conv(x, w1) b = Conv(x, w0) p = Pad(b, pads)
                {joined} y = Conv(j, w2)}}""",
            w0=normal(8, 8, 1, 1), w1=normal(8, 8, 1, 1), w2=normal(2, 8, 1, 1), yes=np.array(True),
            eight=np.array([8]), nothing=np.zeros((), np.float32),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] == 8 and "is not known" in frozen(pruned, "w1")


def test_a_filter_that_several_convolutions_share_stays_shared() -> None:
    pruned = prune_channels(
        model(
            """(float[N,1,1,20] x) => (float[N,2,1,12] y) {
                a = Conv(x, filter) b = Conv(a, filter) c = Conv(b, w1) r = Relu(c) y = Conv(r, w2)}""",
            filter=normal(1, 1, 1, 5), w1=normal(8, 1, 1, 1), w2=normal(2, 8, 1, 1),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w1")[0] < 8
    assert [node.input[1] for node in pruned.model.graph.node if node.op_type == "Conv"][:2] == ["filter"] * 2


def test_groups_know_which_channels_are_dead_already() -> None:
    first, second = normal(8, 3, 1, 1), normal(4, 8, 1, 1)
    first[2], second[:, 5] = 0, 0
    graph = "(float[N,3,5,5] x) => (float[N,4,5,5] y) { a = Conv(x, w1) r = Relu(a) y = Conv(r, w2) }"
    groups = unit_groups(ir.from_proto(model(graph, w1=first, w2=second)))
    dead = [int(group["w1", 0][0]) for group, gone in zip(groups.positions, groups.dead, strict=True) if gone]
    assert len(groups.dead) == 8 and sorted(dead) == [2, 5]

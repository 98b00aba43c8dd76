"""The residual stream of a transformer loses channels: through norms in every spelling, and sums."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.surgery.graphs import normal
from tests.surgery.oracle import model, operate, prune_channels, weight_of
from tests.surgery.written_out import WRITTEN_OUT, written_out

SPELLINGS = {
    "RMSNormalization": "{y} = RMSNormalization<epsilon=0.01>({x}, {s})",
    "SimplifiedLayerNormalization": "{y} = SimplifiedLayerNormalization<axis=-1, epsilon=0.01>({x}, {s})",
    "written out, Div": """{y}p = Pow({x}, two) {y}m = ReduceMean<keepdims=1>({y}p, minus) {y}e = Add({y}m, eps)
        {y}r = Sqrt({y}e) {y}d = Div({x}, {y}r) {y} = Mul({y}d, {s})""",
    "written out, Reciprocal": """{y}p = Mul({x}, {x}) {y}m = ReduceMean<keepdims=1>({y}p, minus) {y}e = Add({y}m, eps)
        {y}r = Sqrt({y}e) {y}i = Reciprocal({y}r) {y}d = Mul({x}, {y}i) {y} = Mul({s}, {y}d)""",
    "L2 norm": "{y}r = ReduceL2<keepdims=1>({x}, minus) {y}d = Div({x}, {y}r) {y} = Mul({y}d, {s})",
}


SKIP_WHOLE = (
    "{y}, , , {x} = com.microsoft.SkipLayerNormalization<epsilon=0.01>({before}, {new}, {s}, {o}, {b})"
)
SPELLINGS["LayerNormalization"] = "{y} = LayerNormalization<axis=-1, epsilon=0.01>({x}, {s})"
SPELLINGS |= {
    f"LayerNormalization written out, {name}": written_out(name, "{y}", "{x}", "{s}", "{o}")
    for name in WRITTEN_OUT
}
ALONE = SPELLINGS["SimplifiedLayerNormalization"]
SKIP = (
    "{y}, , , {x} = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.01>({before}, {new}, {s}, {b})"
)
SPELLINGS["SkipSimplifiedLayerNormalization"] = SKIP
SPELLINGS["LayerNormalization, fused with the sum"] = SKIP_WHOLE


def decoder(spelling: str, norm: str = "") -> onnx.ModelProto:
    """Embeddings of words and places, two blocks of a perceptron, and a head, all on a stream of 16 channels."""
    text = SPELLINGS.get(spelling, norm)
    first = (ALONE if text in (SKIP, SKIP_WHOLE) else text).format(y="n1", x="x0", s="s1", o="o1")

    opset = 23 if spelling == "RMSNormalization" else 18
    weights = {"words": normal(9, 16), "places": normal(5, 16), "head": normal(16, 3)}
    weights |= {f"u{index}": normal(16, 12) for index in (1, 2)} | {
        f"d{index}": normal(12, 16) for index in (1, 2)
    }
    weights |= {f"b{index}": normal(16) for index in (1, 2)} | {
        f"s{index}": normal(16) for index in (1, 2, 3)
    }
    weights |= {f"o{index}": normal(16) for index in (1, 2, 3)} | {"fifteen": np.float32(15)}
    weights |= {
        "two": np.float32(2),
        "minus": np.array([-1]),
        "axes": np.array([-1]),
        "eps": np.float32(0.01),
    }
    graph = f"""(int64[N,5] ids) => (float[N,5,3] y) {{
        e = Gather(words, ids) x0 = Add(e, places)
        {first} h1 = MatMul(n1, u1) g1 = Relu(h1) f1 = MatMul(g1, d1)
        {_added("n2", "x1", "x0", "f1", "b1", "s2", text)} h2 = MatMul(n2, u2) g2 = Relu(h2) f2 = MatMul(g2, d2)
        {_added("n3", "x2", "x1", "f2", "b2", "s3", text)} y = MatMul(n3, head)}}"""
    used = {
        name: array for name, array in weights.items() if name in graph.replace("(", " ").replace(")", " ")
    }
    return model(graph, opset=opset, ir_version=10, **used)


def _added(y: str, x: str, before: str, new: str, b: str, s: str, text: str) -> str:
    """x = before + (new + b), and its norm y."""
    if text in (SKIP, SKIP_WHOLE):
        return text.format(y=y, x=x, before=before, new=new, s=s, b=b, o=s.replace("s", "o"))
    return f"c{x} = Add({new}, {b}) {x} = Add({before}, c{x}) {text.format(y=y, x=x, s=s, o=s.replace('s', 'o'))}"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("rate", [0.3, 0.6])
def test_a_residual_stream_loses_channels_that_are_zero(spelling: str, rate: float) -> None:
    pruned = prune_channels(decoder(spelling), rate)
    assert pruned.choice.rate == pytest.approx(rate, abs=0.1)
    width = weight_of(pruned.model, "places").shape[1]
    assert width < 16 and weight_of(pruned.model, "words").shape == (9, width)
    assert len(weight_of(pruned.model, "s3")) == (16 if spelling.startswith("LayerNormalization") else width)
    assert weight_of(pruned.model, "d2").shape[1] == weight_of(pruned.model, "head").shape[0] == width
    assert weight_of(pruned.model, "u1").shape[1] < 12, "the perceptrons lose neurons, too"
    assert sum(pruned.groups.in_stream) == 16, "without inputs these go last"


def test_a_mean_in_halves_whose_type_the_model_does_not_declare_stays_in_halves() -> None:
    proto = decoder("written out, Div")
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), tensor.name))
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    after = prune_channels(proto, 0.5, tolerance=0.01).model
    shares = [tensor for tensor in after.graph.initializer if tensor.name.endswith("_share")]
    assert [tensor.data_type for tensor in shares] == [onnx.TensorProto.FLOAT16] * 3


def test_a_channel_that_is_another_constant_stays() -> None:
    proto = decoder("RMSNormalization")
    for name, axis in (("words", 1), ("places", 1), ("d1", 1), ("d2", 1), ("b2", 0)):
        array = weight_of(proto, name).copy()
        array[(slice(None),) * axis + ([0, 1],)] = 0
        _replace(proto, name, array)
    bias = weight_of(proto, "b1").copy()
    bias[0] = 0
    _replace(proto, "b1", bias)
    after, _ = operate(proto)
    assert weight_of(after, "words").shape == (9, 15), (
        "the first is 0 everywhere, the second 0 until b1 is added"
    )


def test_a_norm_that_tells_its_mean_keeps_its_channels() -> None:
    proto = decoder("", "{y}, {y}v = SimplifiedLayerNormalization<axis=-1>({x}, {s})")
    proto.graph.output.append(onnx.helper.make_tensor_value_info("n2v", onnx.TensorProto.FLOAT, ("N", 5, 1)))
    assert len(weight_of(prune_channels(proto).model, "s1")) == 16


@pytest.mark.parametrize(
    ("spelling", "pads"),
    [("LayerNormalization", 3), ("tf2onnx", 3), ("Pow and Div", 3), ("fused with the sum", 4)],
)
def test_norms_count_the_channels_that_are_gone_however_often_some_go(spelling: str, pads: int) -> None:
    spelling = next(name for name in SPELLINGS if f", {name}".endswith(f", {spelling}"))
    once = prune_channels(decoder(spelling), 0.3).model
    assert len(weight_of(once, "s3")) == 16 and weight_of(once, "words").shape[1] < 16
    twice = prune_channels(once, 0.4).model
    assert len(weight_of(twice, "s3")) == 16
    assert weight_of(twice, "words").shape[1] < weight_of(once, "words").shape[1]
    assert [node.op_type for node in twice.graph.node].count("Pad") == pads


@pytest.mark.parametrize("bias", [", {b}", ""])
def test_a_norm_behind_the_sum_passes_its_own_channels(bias: str) -> None:
    """As in BERT: what is normalized is the stream."""
    norm = f"{{y}} = LayerNormalization<axis=-1, epsilon=0.01>({{x}}, {{s}}{bias})"
    normed = [
        norm.format(y=f"y{number}", x=f"x{number}", s=f"s{number}", b=f"o{number}") for number in (1, 2, 3)
    ]
    blocks = [
        f"h{number} = MatMul(y{number}, u{number}) g{number} = Relu(h{number}) "
        f"f{number} = MatMul(g{number}, d{number}) c{number} = Add(f{number}, b{number}) "
        f"x{number + 1} = Add(y{number}, c{number}) {normed[number]}"
        for number in (1, 2)
    ]
    weights = {"words": normal(9, 16), "head": normal(16, 3)}
    for number in (1, 2, 3):
        weights |= {f"s{number}": normal(16)} | ({f"o{number}": normal(16)} if bias else {})
    for number in (1, 2):
        weights |= {f"u{number}": normal(16, 12), f"d{number}": normal(12, 16), f"b{number}": normal(16)}
    proto = model(
        f"""(int64[N,5] ids) => (float[N,5,3] y) {{
            x1 = Gather(words, ids) {normed[0]} {" ".join(blocks)} y = MatMul(y3, head)}}""",
        **weights,
    )
    pruned = prune_channels(proto)
    assert weight_of(pruned.model, "words").shape[1] < 16
    assert weight_of(pruned.model, "head").shape[0] == weight_of(pruned.model, "d1").shape[1] < 16


def test_norms_that_share_their_scale_lose_channels() -> None:
    proto = decoder("LayerNormalization")
    for node in proto.graph.node:
        if node.op_type == "LayerNormalization":
            node.input[1] = "s1"
    pruned = prune_channels(proto)
    assert weight_of(pruned.model, "words").shape[1] < 16


@pytest.mark.parametrize("spelling", ["LayerNormalization", "LayerNormalization written out, no bias"])
def test_a_scale_under_another_name_is_one(spelling: str) -> None:
    """torch.onnx lets equal constants share one so."""
    proto = decoder(spelling)
    for name in ("s2", "s3"):
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
        proto.graph.initializer.remove(tensor)
        proto.graph.node.insert(0, onnx.helper.make_node("Identity", ["s1"], [name], f"{name}_is"))
    once = prune_channels(proto, 0.3).model
    assert weight_of(once, "words").shape[1] < 16
    assert weight_of(prune_channels(once, 0.4).model, "words").shape[1] < weight_of(once, "words").shape[1]


def test_means_over_channels_count_those_that_are_gone() -> None:
    proto = model(
        """(float[N,4,6,6] x) => (float[N,1,6,6] m, float[N,1,6,6] s, float[N,1,6,6] a) {
            c = Conv(x, w, b) r = Relu(c) m = ReduceMean<keepdims=1>(r, one) s = ReduceSum<keepdims=1>(r, one)
            q = Sigmoid(c) p = Mul(q, c) a = ReduceSumSquare<keepdims=1>(p, one)}""",
        opset=18, w=normal(8, 4, 1, 1), b=normal(8), one=np.array([1]),
    )  # fmt: skip
    pruned = prune_channels(proto)
    assert weight_of(pruned.model, "w").shape[0] == 4
    largest = proto.graph.node[2]
    largest.op_type = "ReduceMax"
    assert weight_of(prune_channels(proto).model, "w").shape[0] == 8, "zero may be the largest"


def test_nodes_without_names_and_values_of_alike_names_stay_apart() -> None:
    proto = decoder("written out, Div")
    for node in proto.graph.node:
        node.name = ""
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "n1m_mean"
    assert len(weight_of(prune_channels(proto).model, "s1")) < 16


@pytest.mark.parametrize(
    "parts", ["known, , words, places, , s1, o1", "known, kinds, words, places, sorts, s1, o1, ones"]
)
@pytest.mark.parametrize("total", ["", ", x0"])
def test_embeddings_that_onnxruntime_normalizes_lose_channels(parts: str, total: str) -> None:
    """As in BERT: what is normalized is the stream, and lengths are told to the attention."""
    read = "z0 = Add(n0, x0)" if total else "z0 = Identity(n0)"
    told = ", int32[N] lengths" if "ones" in parts else ""
    proto = model(
        f"""(int32[N,5] ids) => (float[N,5,3] y{told}) {{
            known = Abs(ids) kinds = Mod(known, two) ones = Clip(ids, one, one)
            n0, lengths{total} = com.microsoft.EmbedLayerNormalization<epsilon=0.01>({parts}) {read}
            h1 = MatMul(z0, u1) g1 = Relu(h1) f1 = MatMul(g1, d1)
            n1 = com.microsoft.SkipLayerNormalization<epsilon=0.01>(f1, z0, s2, o2) h2 = MatMul(n1, u2) g2 = Relu(h2)
            f2 = MatMul(g2, d2) n2 = com.microsoft.SkipLayerNormalization<epsilon=0.01>(f2, n1, s3, o3, b1)
            y = MatMul(n2, head)}}""",
        words=normal(9, 16), places=normal(5, 16), sorts=normal(2, 16), two=np.int32(2), one=np.int32(1),
        u1=normal(16, 12), d1=normal(12, 16), u2=normal(16, 12), d2=normal(12, 16), b1=normal(16), head=normal(16, 3),
        **{f"{name}{number}": normal(16) for name in "so" for number in (1, 2, 3)},
    )  # fmt: skip
    once = prune_channels(proto, 0.3).model
    width = weight_of(once, "words").shape[1]
    assert 1 < width < 16 and weight_of(once, "head").shape[0] == weight_of(once, "d1").shape[1] == width
    twice = prune_channels(once, 0.4).model
    assert weight_of(twice, "words").shape[1] == weight_of(twice, "places").shape[1] < width
    assert [node.op_type for node in twice.graph.node].count("LayerNormalization") == 1


@pytest.mark.parametrize("opset", [8, 10, 13])
@pytest.mark.parametrize("axis", [1, 3])
def test_a_norm_written_out_over_any_axis_loses_channels_in_any_opset(opset: int, axis: int) -> None:
    """As in ConvNeXt, whose channels come first: behind a convolution, or with channels last."""
    where = (8, 1, 1) if axis == 1 else (8,)
    turned = "c = Transpose<perm=[0,2,3,1]>(q)" if axis == 3 else "c = Identity(q)"
    back = "m = Transpose<perm=[0,3,1,2]>(n)" if axis == 3 else "m = Identity(n)"
    proto = model(
        f"""(float[N,4,6,6] x) => (float[N,3,6,6] y) {{
            q = Conv(x, w, v) {turned} {written_out("Pow and Div", "n", "c", "s", "b", f"[{axis}]")} {back}
            r = Relu(m) y = Conv(r, z)}}""",
        opset=opset, w=normal(8, 4, 1, 1), v=normal(8), s=normal(*where), b=normal(*where), z=normal(3, 8, 1, 1),
        two=np.float32(2), eps=np.float32(0.01),
    )  # fmt: skip
    once = prune_channels(proto).model
    assert weight_of(once, "w").shape[0] == weight_of(once, "z").shape[1] == 4
    assert once.opset_import[0].version == opset
    assert weight_of(prune_channels(once, 0.4).model, "w").shape[0] < 4


def test_a_norm_of_which_something_else_reads_a_part_keeps_its_channels() -> None:
    proto = decoder("LayerNormalization written out, Pow and Div")
    proto.graph.output.append(onnx.helper.make_tensor_value_info("n2d", onnx.TensorProto.FLOAT, ("N", 5, 16)))
    pruned = prune_channels(proto)
    assert weight_of(pruned.model, "words").shape[1] == 16 and weight_of(pruned.model, "u1").shape[1] < 12


@pytest.mark.parametrize("spelling", ["LayerNormalization", "LayerNormalization written out, Pow and Div"])
def test_zeros_that_the_model_itself_puts_behind_a_norm_are_not_those_brought_back(spelling: str) -> None:
    norm = SPELLINGS[spelling].format(y="n", x="p", s="s", o="o")
    proto = model(
        f"""(float[N,5,6] x) => (float[N,5,3] y) {{
            e = MatMul(x, w) p = Pad(e, pads) {norm} y = MatMul(n, head)}}""",
        opset=18, w=normal(6, 16), pads=np.array([0, 0, 0, 0, 0, 3]), head=normal(19, 3), s=normal(19), o=normal(19),
        axes=np.array([-1]), two=np.float32(2), eps=np.float32(0.01),
    )  # fmt: skip
    assert weight_of(prune_channels(proto).model, "w").shape[1] < 16


def test_two_axes_that_are_normalized_together_keep_their_channels() -> None:
    proto = decoder("LayerNormalization written out, Pow and Div")
    next(tensor for tensor in proto.graph.initializer if tensor.name == "axes").CopyFrom(
        onnx.numpy_helper.from_array(np.array([1, 2]), "axes")
    )
    assert weight_of(prune_channels(proto).model, "words").shape[1] == 16


def test_a_norm_without_a_scale_loses_channels_that_nothing_reads() -> None:
    norm = written_out("no bias", "{y}", "{x}", "{s}", "").replace(
        "{y} = Mul({y}q, {s})", "{y} = Identity({y}q)"
    )
    pruned = prune_channels(decoder("", norm))
    assert weight_of(pruned.model, "words").shape[1] == weight_of(pruned.model, "u2").shape[0] < 16


@pytest.mark.parametrize("beside", ["Concat<axis=1>(class, p)", "Concat<axis=1>(p, class)"])
def test_a_class_token_and_places_lose_channels_with_the_stream(beside: str) -> None:
    """As in ViT: one token more for each image, expanded by a shape that is computed."""
    first, last = (written_out("Pow and Div", f"n{k}", f"x{k}", f"s{k}", f"o{k}") for k in (1, 2))
    proto = model(
        f"""(float[N,3,8,8] image) => (float[N,4] y) {{
            c = Conv<strides=[4,4]>(image, w, v) l = Reshape(c, flat) p = Transpose<perm=[0,2,1]>(l)
            sh = Shape(image) n = Slice(sh, zero, one) whole = Concat<axis=0>(n, one, wide)
            class = Expand(token, whole) t = {beside} cut = Slice(places, zero, five, one) x1 = Add(t, cut)
            {first} h = MatMul(n1, u) g = Relu(h) f = MatMul(g, d) x2 = Add(x1, f) {last}
            e = Gather<axis=1>(n2, index) y = Gemm(e, head)}}""",
        opset=18, w=normal(16, 3, 4, 4), v=normal(16), token=normal(1, 1, 16), places=normal(1, 7, 16),
        flat=np.array([0, 16, -1]), zero=np.array([0]), one=np.array([1]), five=np.array([5]), wide=np.array([16]),
        index=np.array(0), u=normal(16, 12), d=normal(12, 16), head=normal(16, 4), axes=np.array([2]),
        two=np.float32(2), eps=np.float32(0.01), **{f"{name}{k}": normal(16) for name in "so" for k in (1, 2)},
    )  # fmt: skip
    after = prune_channels(proto).model
    width = weight_of(after, "w").shape[0]
    assert width < 16 and weight_of(after, "token").shape == (1, 1, width)
    assert weight_of(after, "places").shape[2] == weight_of(after, "head").shape[0] == width


def _replace(proto: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))

"""Shapes of all values, beyond what ONNX infers by itself."""

from __future__ import annotations

import resource

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.model.shapes.inference import infer_shapes
from tests.surgery.oracle import model


def shapes_of(proto: onnx.ModelProto, **inputs: list[int]) -> dict[str, tuple]:
    found = infer_shapes(ir.from_proto(proto), inputs or None)
    return {value.name or "": shape for value, shape in found.items()}


def test_shape_inference_reads_no_large_weight() -> None:
    proto = model(
        "(float[N,900] x) => (float[N,800] y) {y = MatMul(x, w)}", w=np.zeros((900, 800), np.float32)
    )
    shapes = shapes_of(proto)
    assert shapes["w"] == (900, 800) and shapes["y"] == ("N", 800)


def test_names_of_sizes_that_another_inference_generated_say_nothing() -> None:
    proto = model(
        """(float[N,T,6] x) => (float[N,K] y) {
            s = Shape(x) n = Slice(s, zero, two) t = Concat<axis=0>(n, rest) r = Reshape(x, t) y = Flatten(r)}""",
        zero=np.array([0]), two=np.array([2]), rest=np.array([2, 3]),
    )  # fmt: skip
    info = onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["unk__7", "unk__8", 2, 3])
    proto.graph.value_info.append(info)
    assert shapes_of(proto)["r"] == ("N", "T", 2, 3)


@pytest.mark.parametrize("opset", [11, 17])
def test_a_reshape_to_a_computed_shape_is_solved_as_far_as_it_can_be(opset: int) -> None:
    proto = model(
        """(float[N,6,H,W] x) => (float[N,6,K] y) {
            s = Shape(x) c = Cast<to=6>(s) n = Slice(c, zero, two, zero, one) d = Cast<to=7>(n)
            t = Concat<axis=0>(d, rest) r = Reshape(x, t) y = Relu(r)}""",
        opset=opset, zero=np.array([0]), one=np.array([1]), two=np.array([2]), rest=np.array([-1]),
    )  # fmt: skip
    assert shapes_of(proto)["r"][:2] == ("N", 6) and len(shapes_of(proto)["r"]) == 3


def test_columns_that_a_product_reads_tell_the_last_size_of_a_reshape() -> None:
    """Names of one size from two inputs leave it open how large the inferred axis is."""
    proto = model(
        """(float[a,4,8] x, float[b,c] z) => (float[d,6] y) {
            s = Shape(z) n = Slice(s, zero, one) t = Concat<axis=0>(n, rest) r = Reshape(x, t) y = MatMul(r, w)}""",
        zero=np.array([0]), one=np.array([1]), rest=np.array([-1]), w=np.zeros((32, 6), np.float32),
    )  # fmt: skip
    assert shapes_of(proto)["r"] == ("b", 32)


def test_a_size_that_is_left_follows_where_products_of_unnamed_sizes_are_given() -> None:
    """As tf2onnx writes products of heads: heads and batch in one axis."""
    proto = model(
        """(float[N,12,32] x) => (float[a,b,c] y) {
            h = Reshape(x, heads) t = Transpose<perm=[0,2,3,1]>(h) s = Shape(t) f = Gather(s, two)
            p = ReduceProd<axes=[0]>(f) k = Concat<axis=0>(p, minus, twelve) y = Reshape(t, k)}""",
        heads=np.array([-1, 12, 4, 8]), two=np.array([0, 1]), minus=np.array([-1]), twelve=np.array([12]),
    )  # fmt: skip
    assert shapes_of(proto)["y"][1:] == (8, 12)


def test_sizes_of_padded_axes_follow_from_computed_widths() -> None:
    proto = model(
        """(float[N,7,6] x) => (float[N,h,w] y) {
            s = Shape(x) n = Slice(s, one, two) m = Mod(n, four) d = Sub(four, m) p = Mod(d, four)
            c = Concat<axis=0>(zeros, p, zero) y = Pad(x, c)}""",
        one=np.array([1]), two=np.array([2]), four=np.array([4]), zeros=np.zeros(4, np.int64), zero=np.array([0]),
    )  # fmt: skip
    assert shapes_of(proto)["y"] == ("N", 8, 6)


def test_axes_that_are_not_sliced_keep_their_sizes_where_the_bounds_are_computed() -> None:
    proto = model(
        """(int64[N,T] x, float[2,512,3] d) => (float[a,b,c] y) {
            s = Shape(x) n = Gather(s, place) e = Unsqueeze(n, zero) y = Slice(d, zero, e, last, last)}""",
        zero=np.array([0]), last=np.array([1]), place=np.array(1),
    )  # fmt: skip
    assert shapes_of(proto, x=[5, 46])["y"] == (2, 46, 3)


@pytest.mark.parametrize(
    ("shape", "target", "expected"),
    [
        ("N,16,5,5", [0, -1], ("N", 400)),
        ("N,T,32", [0, -1, 4, 8], ("N", "T", 4, 8)),
        ("N,16", [-1, 4, 4], ("N", 4, 4)),
    ],
)
def test_the_open_size_of_a_reshape_is_what_the_others_leave(
    shape: str, target: list[int], expected: tuple
) -> None:
    out = ",".join("M" for _ in target)
    proto = model(
        f"(float[{shape}] x) => (float[{out}] y) {{r = Reshape(x, t) y = Relu(r)}}", t=np.array(target)
    )
    assert shapes_of(proto)["r"] == expected


def test_the_output_of_an_if_has_the_shape_that_its_branches_agree_on() -> None:
    graph = """(float[N,4] x, bool c) => (float[N,6] y) {{
        z = If(c) <then_branch = t () => (a) {{a = MatMul(x, w1)}}, else_branch = e () => (b) {{b = MatMul(x, w2)}}>
        y = MatMul(z, {})}}"""
    arrays = {f"w{n}": np.ones((4, width), np.float32) for n, width in ((1, 5), (2, 5), (3, 7))}
    same = model(graph.format("w4"), w4=np.ones((5, 6), np.float32), **arrays)
    assert shapes_of(same)["z"] == ("N", 5) and shapes_of(same)["a"] == ("N", 5)
    other = model(graph.replace("w2", "w3").format("w4"), w4=np.ones((5, 6), np.float32), **arrays)
    assert "z" not in shapes_of(other) and shapes_of(other)["b"] == ("N", 7)


def test_values_of_one_name_in_both_branches_of_an_if_are_distinguished() -> None:
    proto = model(
        """(float[N,4] x, bool c) => (float[N,1] y) {
            y = If(c) <then_branch = t () => (float[N,1] a) {h = MatMul(x, w1) a = ReduceMean<axes=[1]>(h)},
                       else_branch = e () => (float[N,1] b) {h = MatMul(x, w2) b = ReduceMean<axes=[1]>(h)}>}""",
        w1=np.ones((4, 5), np.float32), w2=np.ones((4, 7), np.float32),
    )  # fmt: skip
    found = infer_shapes(ir.from_proto(proto))
    assert sorted(shape for value, shape in found.items() if value.name == "h") == [("N", 5), ("N", 7)]


def test_operators_of_onnxruntime_have_the_shapes_of_their_plain_forms() -> None:
    proto = model(
        """(float[N,5,6] x) => (float[N,5,4] y) {
            a = com.microsoft.Attention<num_heads=2>(x, w) g = com.microsoft.FastGelu(a)
            s, m, i, k = com.microsoft.SkipLayerNormalization(g, a, l)
            y = com.microsoft.FusedMatMul<transB=1>(k, v)}""",
        w=np.ones((6, 24), np.float32), l=np.ones(8, np.float32), v=np.ones((4, 8), np.float32),
    )  # fmt: skip
    found = shapes_of(proto)
    assert [found[name] for name in "agsk"] == [("N", 5, 8)] * 4 and found["y"] == ("N", 5, 4)


def test_sizes_that_exporters_write_as_question_marks_are_open_and_not_the_same() -> None:
    proto = model("(float[N,4] x) => (float[N,4] y) {y = Relu(x)}")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "?"
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1
    assert shapes_of(proto)["x"] == (None, None)


def test_input_shapes_replace_those_that_the_model_declares() -> None:
    proto = model("(float[N,4] x) => (float[N,6] y) {y = MatMul(x, w)}", w=np.ones((4, 6), np.float32))
    assert shapes_of(proto, x=[3, 4])["y"] == (3, 6)


def test_a_vector_of_millions_costs_no_memory() -> None:
    """ONNX's own inference of this takes gigabytes."""
    proto = model(
        "(float[N] x) => (float[N] y) {c = Cast<to=7>(v) n = ReduceMax<keepdims=0>(c) d = Cast<to=1>(n) y = Add(x, d)}",
        v=np.zeros(30_000_000, np.uint8),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert shapes_of(proto)["v"] == (30_000_000,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_a_tile_keeps_the_names_of_sizes_that_it_does_not_repeat() -> None:
    proto = model(
        "(float[N,2,T,6] x) => (float[a,b,c,d] y) {t = Tile(x, repeats) y = Relu(t)}",
        repeats=np.array([1, 3, 2, 1]),
    )  # fmt: skip
    assert shapes_of(proto)["t"] == ("N", 6, "2*T", 6)


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("Scaler<offset=[0.0], scale=[2.0]>", ("N", 5)),
        ('Normalizer<norm="L2">', ("N", 5)),
        ("Imputer<imputed_value_int64s=[0]>", ("N", 5)),
        ("LinearRegressor<coefficients=[1.0,2.0], targets=2>", ("N", 2)),
        ("LinearRegressor<coefficients=[1.0]>", ("N", 1)),
    ],
)
def test_shapes_of_operators_of_pipelines(node: str, shape: tuple) -> None:
    proto = model(f"(int64[N,5] x) => (float[a,b] z) {{y = ai.onnx.ml.{node}(x) z = Cast<to=1>(y)}}")
    proto.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    assert shapes_of(proto)["y"] == shape

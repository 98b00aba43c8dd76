"""Models of odd values: without elements, texts, sequences, and types beside float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from tests.builders import floats, normal
from tests.fuzz.habit import HABITS, SAMPLES, TWO, Habit, classes, dense, habit, images, mlp_of, tail, with_ml
from tests.fuzz.models import written


@habit("weight without elements")
def _empty_weight() -> Habit:
    """A branch of no features, as a model of optional parts has it."""
    return mlp_of(
        "e = MatMul (x, none) c = Concat <axis = 1> (h, e) r = Relu (c)",
        {"none": np.zeros((8, 0), np.float32)},
    )


@habit("product over no elements")
def _empty_contraction() -> Habit:
    return mlp_of(
        "s = Slice (x, zero, zero, one) e = MatMul (s, none) c = Add (h, e) r = Relu (c)",
        {"none": np.zeros((0, 16), np.float32), "zero": np.array([0]), "one": np.array([1])},
    )


@habit("empty constants")
def _empty_constants() -> Habit:
    """The axes of Squeeze, the regions of Resize: tensors of no elements."""
    return images(
        """g (float[N,2,4,4] x) => (float[N,4] y) {
            u = Resize <mode = "nearest"> (x, roi, scales) a = Conv (u, k) c = GlobalAveragePool (a)
            f = Flatten (c) y = Gemm (f, v) }""",
        {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
        | {"k": normal(6, 2, 3, 3), "v": normal(6, 4)},
        (2, 4, 4),
    )


@habit("convolution without channels")
def _empty_convolution() -> Habit:
    return images(
        """g (float[N,2,6,6] x) => (float[N,4] y) {
            a = Conv (x, k) b = Conv (x, none) c = Concat <axis = 1> (a, b) d = GlobalAveragePool (c)
            f = Flatten (d) y = Gemm (f, v) }""",
        {"k": normal(6, 2, 3, 3), "none": np.zeros((0, 2, 3, 3), np.float32), "v": normal(6, 4)},
        (2, 6, 6),
    )


@habit("output without elements")
def _empty_output() -> Habit:
    return tail(
        "z = Slice (p, zero, zero, one) y = Identity (p)",
        "float[N,4] y, float[N,0] z",
        {"zero": np.array([0]), "one": np.array([1])},
    )


@habit("only output without elements")
def _only_empty_output() -> Habit:
    return tail(
        "y = Slice (p, zero, zero, one)", "float[N,0] y", {"zero": np.array([0]), "one": np.array([1])}
    )


@habit("NMS that finds nothing")
def _nms_nothing() -> Habit:
    return _nms(1e6)


@habit("NMS")
def _nms_something() -> Habit:
    return _nms(-1e6)


def _nms(threshold: float) -> Habit:
    """Boxes and scores from one convolution; [selected, 3] at the end."""
    return images(
        """g (float[1,3,8,8] x) => (int64[S,3] y, float[1,16,4] boxes) {
            f = Conv <strides = [2,2], pads = [1,1,1,1]> (x, k) r = Relu (f) o = Conv (r, j)
            t = Reshape (o, shape) u = Transpose <perm = [0,2,1]> (t)
            boxes, s = Split <axis = 2> (u, parts) scores = Transpose <perm = [0,2,1]> (s)
            y = NonMaxSuppression (boxes, scores, most, iou, least) }""",
        {"k": normal(8, 3, 3, 3), "j": normal(6, 8, 1, 1), "shape": np.array([1, 6, 16])}
        | {"parts": np.array([4, 2]), "most": np.array([3]), "iou": np.array([0.5], np.float32)}
        | {"least": np.array([threshold], np.float32)},
        (3, 8, 8),
    )


@habit("string input")
def _strings() -> Habit:
    text = """g (float[N,8] x, string[N] ids) => (float[N,4] y, string[N] kept) {
        h = MatMul (x, w) r = Relu (h) y = MatMul (r, v) kept = Identity (ids) }"""
    names = np.array([f"row {n}" for n in range(SAMPLES)])
    return Habit(written(text, TWO), {"x": normal(SAMPLES, 8), "ids": names}, None)


@habit("labels encoded from strings")
def _label_encoder() -> Habit:
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["s"],
            ["i"],
            domain="ai.onnx.ml",
            keys_strings=["a", "b"],
            values_floats=[0.0, 1.0],
        ),
        helper.make_node("Concat", ["x", "i"], ["c"], axis=1),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    model = with_ml(
        nodes,
        [floats("x", "N", 8), helper.make_tensor_value_info("s", TensorProto.STRING, ["N", 1])],
        [floats("y", "N", 4)],
        {"w": normal(9, 4)},
    )
    return Habit(model, {"x": normal(SAMPLES, 8), "s": np.array([["a"], ["b"]] * 4)}, classes())


@habit("Sequence of Maps at the end")
def _zipmap() -> Habit:
    """As skl2onnx writes the probabilities of a classifier."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["l"]),
        helper.make_node("Softmax", ["l"], ["p"], axis=1),
        helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3]),
    ]
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        helper.make_value_info("maps", maps),
    ]
    return Habit(with_ml(nodes, [floats("x", "N", 8)], outputs, TWO), {"x": normal(SAMPLES, 8)}, classes())


@habit("Map output alone, with labels")
def _zipmap_alone() -> Habit:
    found = _zipmap()
    del found.model.graph.output[0], found.model.graph.node[4]
    return found


@habit("Sequence output")
def _sequence() -> Habit:
    found = tail("y = SequenceConstruct (p, r)", "float[N,4] p")
    found.model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    return Habit(found.model, found.inputs, classes())


@habit("Scaler")
def _scaler() -> Habit:
    nodes = [
        helper.make_node("Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[0.5] * 8, scale=[2.0] * 8),
        helper.make_node("MatMul", ["s", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["l"]),
        helper.make_node("Scaler", ["l"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[0.1]),
    ]
    return Habit(
        with_ml(nodes, [floats("x", "N", 8)], [floats("y", "N", 4)], TWO),
        {"x": normal(SAMPLES, 8)},
        classes(),
    )


def _float8(kind: str) -> Habit:
    """Weights in eight bits behind DequantizeLinear, as TensorRT's exporter writes them."""
    dtype = getattr(ml_dtypes, kind)
    return dense(
        """g (float[N,8] x) => (float[N,4] y) {
            d = DequantizeLinear (q, s) h = MatMul (x, d) r = Relu (h) y = MatMul (r, v) }""",
        {"q": normal(8, 16).astype(dtype), "s": np.float32(0.5), "v": TWO["v"]},
        opset=19,
    )


HABITS["float8 E4M3"] = lambda: _float8("float8_e4m3fn")
HABITS["float8 E5M2"] = lambda: _float8("float8_e5m2")


@habit("float8 behind Cast")
def _float8_cast() -> Habit:
    return dense(
        """g (float[N,8] x) => (float[N,4] y) {
            d = Cast <to = 1> (q) h = MatMul (x, d) r = Relu (h) y = MatMul (r, v) }""",
        {"q": normal(8, 16).astype(ml_dtypes.float8_e4m3fn), "v": TWO["v"]},
        opset=19,
    )


@habit("bfloat16 behind Cast")
def _bfloat16() -> Habit:
    return dense(
        """g (float[N,8] x) => (float[N,4] y) {
            d = Cast <to = 1> (q) h = MatMul (x, d) r = Relu (h) y = MatMul (r, v) }""",
        {"q": normal(8, 16).astype(ml_dtypes.bfloat16), "v": TWO["v"]},
    )


@habit("int4 weights")
def _int4() -> Habit:
    return dense(
        """g (float[N,8] x) => (float[N,4] y) {
            d = DequantizeLinear <axis = 0> (q, s) h = MatMul (x, d) r = Relu (h) y = MatMul (r, v) }""",
        {
            "q": (normal(8, 16) * 3).clip(-8, 7).astype(ml_dtypes.int4),
            "s": np.ones(8, np.float32),
            "v": TWO["v"],
        },
        opset=21,
    )


@habit("float16")
def _float16() -> Habit:
    text = """g (float16[N,8] x) => (float16[N,4] y) { h = MatMul (x, w) r = Relu (h) y = MatMul (r, v) }"""
    weights = {name: array.astype(np.float16) for name, array in TWO.items()}
    return Habit(written(text, weights), {"x": normal(SAMPLES, 8).astype(np.float16)}, classes())


@habit("float64")
def _float64() -> Habit:
    text = "g (double[N,8] x) => (double[N,4] y) { h = MatMul (x, w) r = Relu (h) y = MatMul (r, v) }"
    weights = {name: array.astype(np.float64) for name, array in TWO.items()}
    return Habit(written(text, weights), {"x": normal(SAMPLES, 8).astype(np.float64)}, classes())


@habit("scalar output")
def _scalar() -> Habit:
    return tail("y = ReduceMean <keepdims = 0> (p)", "float y")


@habit("scalar input")
def _scalar_input() -> Habit:
    text = """g (float[N,8] x, float t) => (float[N,4] y) {
        h = MatMul (x, w) r = Relu (h) p = MatMul (r, v) y = Mul (p, t) }"""
    return Habit(
        written(text, TWO), {"x": normal(SAMPLES, 8), "t": np.full(SAMPLES, 2, np.float32)}, classes()
    )


@habit("boolean output")
def _boolean() -> Habit:
    return tail("y = Greater (p, zero)", "bool[N,4] y", {"zero": np.float32(0)})


@habit("sequences inside")
def _sequences_inside() -> Habit:
    return mlp_of(
        "q = SplitToSequence <axis = 1, keepdims = 1> (h, eight) a = SequenceAt (q, zero) b = SequenceAt (q, one) "
        "c = Concat <axis = 1> (a, b) r = Relu (c)",
        {"eight": np.array(8), "zero": np.array(0), "one": np.array(1)},
    )

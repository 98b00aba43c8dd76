"""Models in operators of integers, as onnxruntime's quantizer and its fusions leave them."""

from __future__ import annotations

import numpy as np
from onnxruntime.quantization import QuantType

from tests.builders import cnn, mlp, normal
from tests.fuzz.habit import SAMPLES, TWO, Habit, classes, dense, habit, images
from tests.quantizing import dynamic, optimized, static


@habit("QLinearConv and QGemm")
def _qoperator() -> Habit:
    inputs = {"x": normal(SAMPLES, 1, 8, 8)}
    return Habit(static(cnn(), inputs, per_channel=True), inputs, classes())


@habit("QGemm of asymmetric weights")
def _asymmetric() -> Habit:
    inputs = {"x": normal(SAMPLES, 8)}
    return Habit(static(mlp(), inputs, weights=QuantType.QUInt8), inputs, classes())


@habit("QLinearAdd, QLinearConcat and QLinearAveragePool")
def _branches() -> Habit:
    found = images(
        """g (float[N,4,8,8] x) => (float[N,5] y) {
            a = Conv <pads = [1,1,1,1]> (x, k, b) s = Sigmoid (a) c = Conv <pads = [1,1,1,1]> (s, l) d = Add (c, a)
            e = Concat <axis = 1> (d, s) p = AveragePool <kernel_shape = [2,2]> (e) g = GlobalAveragePool (p)
            f = Flatten (g) y = MatMul (f, v) }""",
        {"k": normal(8, 4, 3, 3), "b": normal(8), "l": normal(8, 8, 3, 3, seed=1), "v": normal(16, 5)},
        (4, 8, 8),
    )
    return Habit(static(found.model, found.inputs, activations=QuantType.QInt8), found.inputs, classes(5))


@habit("DynamicQuantizeMatMul")
def _fused() -> Habit:
    found = dense(
        "g (float[N,8] x) => (float[N,4] y) { h = MatMul (x, w) a = Add (h, b) r = Relu (a) y = MatMul (r, v) }",
        TWO | {"b": normal(16)},
    )
    return Habit(optimized(dynamic(found.model, per_channel=True)), found.inputs, found.labels)


@habit("DynamicQuantizeLSTM")
def _lstm() -> Habit:
    found = images(
        """g (float[N,5,4] x) => (float[N,3] y) {
            t = Transpose <perm = [1,0,2]> (x) , s = LSTM <hidden_size = 6> (t, w, r, b) q = Squeeze (s, zero)
            y = MatMul (q, v) }""",
        {"w": normal(1, 24, 4), "r": normal(1, 24, 6, seed=1), "b": normal(1, 48, seed=2), "v": normal(6, 3),
         "zero": np.array([0])},
        (5, 4),
    )  # fmt: skip
    return Habit(dynamic(found.model), found.inputs, classes(3))

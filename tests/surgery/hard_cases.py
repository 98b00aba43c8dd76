"""The hard cases of structured pruning, beside what other tools do with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from tests.surgery.graphs import attention, normal, recurrent
from tests.surgery.oracle import model, prune_channels


@dataclass(frozen=True)
class HardCase:
    """A graph; what onnxsim 0.8.1 and Torch-Pruning do with it at rate 0.5; the reason why it is frozen, if it is."""

    name: str
    onnxsim: str
    torch_pruning: str
    build: Callable[[], onnx.ModelProto]
    frozen: str | None = None


def image(body: str, **weights: np.ndarray) -> Callable[[], onnx.ModelProto]:
    """A case on images of 4 x 6 x 6 whose output is pooled to three numbers."""
    return lambda: model(
        f"(float[2,4,6,6] x) => (float[2,3,1,1] y) {{{body} z = Conv(last, wz) y = GlobalAveragePool(z)}}",
        **weights,
    )


CASES = (
    HardCase(
        "Conv-BN", "prunes", "prunes",
        image("a = Conv(x, w1) n = BatchNormalization(a, s, o, m, v) last = Relu(n)",
              w1=normal(8, 4, 3, 3), s=normal(8), o=normal(8), m=normal(8), v=np.abs(normal(8)) + 1,
              wz=normal(3, 8, 1, 1)),
    ),
    HardCase(
        "depthwise", "prunes", "prunes",
        image("a = Conv(x, w1) d = Conv<group=8, pads=[1,1,1,1]>(a, w2, b2) last = Relu(d)",
              w1=normal(8, 4, 1, 1), w2=normal(8, 1, 3, 3), b2=normal(8), wz=normal(3, 8, 1, 1)),
    ),
    HardCase(
        "grouped", "prunes", "prunes",
        image("a = Conv(x, w1) last = Conv<group=4>(a, w2)", w1=normal(8, 4, 1, 1), w2=normal(8, 2, 3, 3),
              wz=normal(3, 8, 1, 1)),
    ),
    HardCase(
        "ConvTranspose", "prunes", "prunes",
        image("a = Conv(x, w1) last = ConvTranspose<strides=[2,2]>(a, w2, b2)", w1=normal(8, 4, 1, 1),
              w2=normal(8, 6, 2, 2), b2=normal(6), wz=normal(3, 6, 1, 1)),
    ),
    HardCase(
        "shared weight", "prunes", "prunes",
        image("a = Conv(x, w1) b = Conv(a, w2) r = Relu(b) last = Conv(r, w2)", w1=normal(8, 4, 1, 1),
              w2=normal(8, 8, 1, 1), wz=normal(3, 8, 1, 1)),
    ),
    HardCase(
        "residual add", "prunes", "prunes",
        image("a = Conv(x, w1) r = Relu(a) b = Conv(r, w2) last = Add(a, b)", w1=normal(8, 4, 1, 1),
              w2=normal(8, 8, 1, 1), wz=normal(3, 8, 1, 1)),
    ),
    HardCase(
        "Conv, Flatten, Gemm", "leaves", "prunes",
        lambda: model(
            "(float[N,4,6,6] x) => (float[N,3] y) {a = Conv(x, w1) f = Flatten(a) y = Gemm<transB=1>(f, w2, b2)}",
            w1=normal(8, 4, 3, 3), w2=normal(3, 128), b2=normal(3)),
    ),
    HardCase(
        "cascaded Concat", "leaves", "prunes",
        image("a = Conv(x, w1) c = Concat<axis=1>(a, x) b = Conv(c, w2) last = Concat<axis=1>(c, b)",
              w1=normal(8, 4, 1, 1), w2=normal(6, 12, 1, 1), wz=normal(3, 18, 1, 1)),
    ),
    HardCase(
        "Split / GLU", "leaves", "breaks",
        image("a = Conv(x, w1) p, q = Split<axis=1>(a) s = Sigmoid(q) last = Mul(p, s)", w1=normal(8, 4, 1, 1),
              wz=normal(3, 4, 1, 1)),
    ),
    HardCase(
        "channel shuffle", "leaves", "silently wrong",
        image("a = Conv(x, w1) s = Reshape(a, g) t = Transpose<perm=[0,2,1,3,4]>(s) last = Reshape(t, c)",
              w1=normal(8, 4, 1, 1), g=np.array([0, 2, 4, 6, 6]), c=np.array([0, -1, 6, 6]),
              wz=normal(3, 8, 1, 1)),
    ),
    HardCase(
        "attention written out as MatMul/Reshape/Transpose", "leaves", "breaks",
        lambda: attention(4, 8, "7", computed=False, fused=False),
    ),
    HardCase("LSTM", "leaves", "error", lambda: recurrent("LSTM", 2, "constant")),
    HardCase("GRU", "leaves", "leaves", lambda: recurrent("GRU", 1, "none")),
    HardCase(
        "DepthToSpace", "prunes", "error",
        image("a = Conv(x, w1) last = DepthToSpace<blocksize=2>(a)", w1=normal(16, 4, 1, 1),
              wz=normal(3, 4, 1, 1)),
    ),
    HardCase(
        "residual that meets the graph input", "leaves", "breaks",
        image("a = Conv(x, w1) last = Add(x, a)", w1=normal(4, 4, 1, 1), wz=normal(3, 4, 1, 1)),
        frozen="it reaches the graph input 'x'",
    ),
    HardCase(
        "residual that meets the graph output", "leaves", "breaks",
        lambda: model(
            "(float[N,4] x) => (float[N,8] y, float[N,3] z) {a = MatMul(x, w1) b = MatMul(a, w2) y = Add(a, b) "
            "z = MatMul(y, w3)}", w1=normal(4, 8), w2=normal(8, 8), w3=normal(8, 3)),
        frozen="it reaches the graph output 'y'",
    ),
)  # fmt: skip


def outcome(case: HardCase) -> str:
    """What happens to the case at rate 0.5, compared with the model with the same channels at zero."""
    pruned = prune_channels(case.build())
    if pruned.choice.chosen.size:
        return "prunes"
    return f"freezes: {next(layer.frozen for layer in pruned.report.layers if layer.frozen)}"

"""Random graphs of all the operators that surgery has rules for: neither dead units nor channels taken out change them.

100 graphs; with ONNXPRUNE_LONG=1 in the environment, 2,000.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.surgery.growing import LARGEST, Graph
from tests.surgery.norm_steps import add_token, block, normalize, normalize_channels, normalize_written_out
from tests.surgery.oracle import prune_channels

EXAMPLES = 2000 if os.environ.get("ONNXPRUNE_LONG") else 100
ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Softplus")


def convolve(g: Graph) -> None:
    c, h, w = g.shape
    groups = g.pick(1, 1, 1, 2, c)
    groups = groups if c % groups == 0 else 1
    out = groups * int(g.rng.integers(1, max(2, 9 // groups)))
    kernel = int(g.rng.integers(1, min(h, w, 3) + 1))
    pad = int(g.rng.integers(0, kernel))
    biases = [g.floats(out)] if g.rng.random() < 0.7 else []
    weight = g.weight(out, c // groups, kernel, kernel)
    g.node("Conv", g.last, weight, *biases, group=groups, pads=[pad] * 4, kernel_shape=[kernel] * 2)
    g.shape = (out, h + 2 * pad - kernel + 1, w + 2 * pad - kernel + 1)


def convolve_transposed(g: Graph) -> None:
    c, h, w = g.shape
    groups = g.pick(1, 1, 2)
    groups = groups if c % groups == 0 else 1
    out = int(g.rng.integers(1, 5))
    weight = g.weight(c, out, 2, 2, out=1, into=0)
    stride = 2 if max(h, w) <= 8 else 1
    g.node("ConvTranspose", g.last, weight, g.floats(out * groups), group=groups, strides=[stride] * 2)
    g.shape = (out * groups, (h - 1) * stride + 2, (w - 1) * stride + 2)


def activate(g: Graph) -> None:
    g.node(g.pick(*ACTIVATIONS), g.last)


def scale(g: Graph) -> None:
    c, *space = g.shape
    kind = g.pick("PRelu", "Mul", "Add", "Sub", "BatchNormalization", "InstanceNormalization")
    if kind == "BatchNormalization":
        g.node(kind, g.last, g.floats(c), g.floats(c), g.floats(c), g.positive(c))
    elif kind == "InstanceNormalization" and np.prod(space) > 1:
        g.node("Add", g.last, g.floats(c, *space))  # of an even channel the variance is rounding alone
        g.node(kind, g.last, g.floats(c), g.floats(c))
    elif kind != "InstanceNormalization":
        g.node(kind, g.last, g.floats(c, *[1] * len(space)))


def pool(g: Graph) -> None:
    c, h, w = g.shape
    if min(h, w) >= 2:
        attributes = (
            {"count_include_pad": g.pick(0, 1)}
            if (kind := g.pick("MaxPool", "AveragePool")) == "AveragePool"
            else {}
        )
        pad = g.pick(0, 1)
        g.node(kind, g.last, kernel_shape=[2, 2], strides=[2, 2], pads=[pad] * 4, **attributes)
        g.shape = (c, (h + 2 * pad - 2) // 2 + 1, (w + 2 * pad - 2) // 2 + 1)


def resize(g: Graph) -> None:
    c, h, w = g.shape
    if max(h, w) > 8:
        return
    if g.batch == "N" or g.rng.random() < 0.5:
        g.node(
            "Resize",
            g.last,
            "",
            g.constant(np.array([1, 1, 2, 1], np.float32)),
            mode=g.pick("nearest", "linear"),
        )
        g.shape = (c, 2 * h, w)
    else:
        g.node("Resize", g.last, "", "", g.integers(g.batch, c, h, w + 1), mode="nearest")
        g.shape = (c, h, w + 1)


def keep(g: Graph) -> None:
    g.kept.append((g.last, g.shape))


def join(g: Graph) -> None:
    """Concat with a value from before, or Add where it is as wide."""
    fitting = [(name, shape) for name, shape in g.kept if shape[1:] == g.shape[1:] and name != g.last]
    if not fitting:
        return
    name, shape = fitting[g.rng.integers(len(fitting))]
    if shape == g.shape and g.rng.random() < 0.6:
        g.node(g.pick("Add", "Mul"), g.last, name)
    elif shape[0] + g.shape[0] <= LARGEST:
        g.node("Concat", *((name, g.last) if g.rng.random() < 0.5 else (g.last, name)), axis=1)
        g.shape = (shape[0] + g.shape[0], *g.shape[1:])


def residual(g: Graph) -> None:
    before, c = g.last, g.shape[0]
    g.node("Conv", g.last, g.weight(c, c, 1, 1), g.floats(c))
    g.node("Add", before, g.last)


def split(g: Graph) -> None:
    """Even or not; one part goes on and the other is kept, or one gates the other."""
    c, *rest = g.shape
    if c < 2:
        return
    if c % 2 == 0 and g.rng.random() < 0.5:
        left, right = g.node("Split", g.last, outputs=2, axis=1)
        g.node("Sigmoid", right)
        g.node("Mul", left, g.last)
        g.shape = (c // 2, *rest)
        return
    first = int(g.rng.integers(1, c))
    left, right = g.node("Split", g.last, g.integers(first, c - first), outputs=2, axis=1)
    g.kept.append((left, (first, *rest)))
    g.last, g.shape = right, (c - first, *rest)


def pick_channels(g: Graph) -> None:
    c, *rest = g.shape
    kind = g.pick("Slice", "Gather", "Pad")
    if kind == "Slice":
        start = int(g.rng.integers(0, c))
        end = int(g.rng.integers(start + 1, c + 1))
        g.node("Slice", g.last, g.integers(start), g.integers(end), g.integers(1))
        g.shape = (end - start, *rest)
    elif kind == "Gather":
        places = g.rng.integers(-c, c, int(g.rng.integers(1, c + 2)))
        g.node("Gather", g.last, g.integers(*places), axis=1)
        g.shape = (len(places), *rest)
    else:
        before, after = g.pick(0, 1), g.pick(0, 2)
        g.node("Pad", g.last, g.integers(0, before, *[0] * len(rest), 0, after, *[0] * len(rest)))
        g.shape = (c + before + after, *rest)


def weave(g: Graph) -> None:
    c, h, w = g.shape
    if c % 4 == 0 and max(h, w) <= 6:
        g.node("DepthToSpace", g.last, blocksize=2, mode=g.pick("DCR", "CRD"))
        g.shape = (c // 4, 2 * h, 2 * w)
    elif h % 2 == 0 and w % 2 == 0 and 4 * c <= LARGEST:
        g.node("SpaceToDepth", g.last, blocksize=2)
        g.shape = (4 * c, h // 2, w // 2)


def shuffle(g: Graph) -> None:
    c, h, w = g.shape
    groups = g.pick(2, 3)
    if c % groups == 0:
        g.node("Reshape", g.last, g.integers(0, groups, c // groups, h, w))
        g.node("Transpose", g.last, perm=[0, 2, 1, 3, 4])
        g.node("Reshape", g.last, g.integers(0, -1, h, w))


def excite(g: Graph) -> None:
    before, c = g.last, g.shape[0]
    g.node("ReduceMean", g.last, axes=[2, 3], keepdims=1)
    g.node("Conv", g.last, g.weight(3, c, 1, 1))
    g.node("Relu", g.last)
    g.node("Conv", g.last, g.weight(c, 3, 1, 1), g.floats(c))
    g.node("Sigmoid", g.last)
    g.node("Mul", before, g.last)


IMAGE_STEPS: tuple[Callable[[Graph], None], ...] = (
    convolve, convolve, convolve, convolve_transposed, activate, scale, pool, resize, keep, join, join, residual, split,
    pick_channels, weave, shuffle, excite, normalize_channels,
)  # fmt: skip


def to_sequence(g: Graph) -> None:
    """(N, C, H, W) to (N, H * W, C)."""
    c, h, w = g.shape
    g.node("Reshape", g.last, g.integers(0, c, h * w))
    g.node("Transpose", g.last, perm=[0, 2, 1])
    g.shape = (h * w, c)


def project(g: Graph) -> None:
    t, c = g.shape
    out = int(g.rng.integers(1, 9))
    if g.rng.random() < 0.3:
        g.node("Einsum", g.last, g.weight(out, c), equation="btc,dc->btd")
    else:
        g.node("MatMul", g.last, g.weight(c, out, out=1, into=0))
    if g.rng.random() < 0.6:
        g.node("Add", g.last, g.floats(out))
    g.shape = (t, out)


def attend(g: Graph) -> None:
    """Written out, or as one operator."""
    t, c = g.shape
    heads, width = g.pick(1, 2, 3), g.pick(2, 4)
    hidden, source = heads * width, g.last
    if g.rng.random() < 0.3:
        weight, bias = g.weight(c, 3 * hidden, out=1, into=0), g.floats(3 * hidden)
        g.node("Attention", source, weight, bias, domain="com.microsoft", num_heads=heads)
        g.shape = (t, hidden)
        return
    if g.rng.random() < 0.5:
        g.node("MatMul", source, g.weight(c, 3 * hidden, out=1, into=0))
        parts = g.node("Split", g.last, outputs=3, axis=-1)
    else:
        parts = [g.node("MatMul", source, g.weight(c, hidden, out=1, into=0))[0] for _ in range(3)]
    laid = []
    for part, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
        g.node("Add", part, g.floats(hidden))
        g.node("Reshape", g.last, g.integers(0, t, heads, width))
        laid.append(g.node("Transpose", g.last, perm=perm)[0])
    g.node("MatMul", laid[0], laid[1])
    g.node("Softmax", g.last, axis=-1)
    g.node("MatMul", g.last, laid[2])
    g.node("Transpose", g.last, perm=[0, 2, 1, 3])
    g.node("Reshape", g.last, g.integers(0, t, hidden))
    g.shape = (t, hidden)


def recur(g: Graph) -> None:
    """LSTM, GRU or RNN, over (T, N, C)."""
    t, c = g.shape
    kind, directions, hidden = g.pick("LSTM", "GRU", "RNN"), g.pick(1, 2), g.pick(2, 4)
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * hidden
    g.node("Transpose", g.last, perm=[1, 0, 2])
    inputs = [g.weight(directions, rows, c, out=1, into=2), g.weight(directions, rows, hidden, out=1, into=2)]
    if g.rng.random() < 0.5:
        inputs.append(g.floats(directions, 2 * rows))
    direction = "bidirectional" if directions == 2 else "forward"
    g.node(kind, g.last, *inputs, hidden_size=hidden, direction=direction)
    g.node("Transpose", g.last, perm=[2, 0, 1, 3])
    g.node("Reshape", g.last, g.integers(0, 0, -1))
    g.shape = (t, directions * hidden)


def soften(g: Graph) -> None:
    g.node("Softmax", g.last, axis=g.pick(-1, 1))


SEQUENCE_STEPS: tuple[Callable[[Graph], None], ...] = (
    project, project, activate, normalize, attend, recur, soften, normalize_written_out, block, block, add_token,
)  # fmt: skip


def finish(g: Graph) -> None:
    """To (N, columns), and through one or two Gemms."""
    if len(g.shape) == 3 and g.rng.random() < 0.4:
        g.node(g.pick("GlobalAveragePool", "GlobalMaxPool"), g.last)
        g.shape = (g.shape[0], 1, 1)
    columns = int(np.prod(g.shape))
    if g.rng.random() < 0.5:
        g.node("Flatten", g.last)
    else:
        g.node("Reshape", g.last, g.integers(*g.pick((-1, columns), (0, -1))))
    for out in (int(g.rng.integers(1, 9)), 3):
        flip = g.pick(0, 1)
        weight = g.weight(out, columns) if flip else g.weight(columns, out, out=1, into=0)
        g.node("Gemm", g.last, weight, g.floats(out), transB=flip, alpha=0.7)
        if out != 3:
            activate(g)
        columns = out
    g.shape = (3,)


def random_graph(seed: int) -> onnx.ModelProto:
    g = Graph(seed)
    convolve(g)
    for _ in range(int(g.rng.integers(2, 9))):
        IMAGE_STEPS[g.rng.integers(len(IMAGE_STEPS))](g)
    if g.rng.random() < 0.5:
        to_sequence(g)
        for _ in range(int(g.rng.integers(1, 6))):
            SEQUENCE_STEPS[g.rng.integers(len(SEQUENCE_STEPS))](g)
    finish(g)
    return g.model()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.sampled_from(["uniform", "global"]),
    st.sampled_from([1, 2]),
)
def test_removing_channels_of_a_random_graph_equals_zeroing_them(
    seed: int, rate: float, allocation: str, round_to: int
) -> None:
    prune_channels(random_graph(seed), rate, allocation=allocation, round_to=round_to, alone=False)

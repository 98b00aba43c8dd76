"""Channels of what is quantized when it runs: DynamicQuantizeLinear, ConvInteger, MatMulInteger."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.surgery.graphs import RANDOM, normal
from tests.surgery.oracle import Pruned, model, operate, prune_channels, weight_of


def shape_of(pruned: Pruned, name: str) -> tuple[int, ...]:
    return weight_of(pruned.model, name).shape


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("group", [1, 4])
def test_dynamically_quantized_convolutions_lose_channels(
    kind: type[np.integer], per_channel: bool, group: int
) -> None:
    weights = dynamic_weights(kind, (8, 3, 3, 3), (8, 8 // group, 3, 3), per_channel=per_channel)
    pruned = prune_channels(
        model(
            f"""(float[N,3,6,6] x) => (float[N,2] y) {{
                q0, s0, z0 = DynamicQuantizeLinear(x) a0 = ConvInteger<pads=[1,1,1,1]>(q0, w0, z0, p0)
                f0 = Cast<to=1>(a0) t0 = Mul(s0, v0) m0 = Mul(f0, t0) c0 = Add(m0, b0) r0 = Relu(c0)
                q1, s1, z1 = DynamicQuantizeLinear(r0)
                a1 = ConvInteger<pads=[1,1,1,1], group={group}>(q1, w1, z1, p1)
                f1 = Cast<to=1>(a1) t1 = Mul(s1, v1) m1 = Mul(f1, t1) c1 = Add(m1, b1) r1 = Relu(c1)
                g = GlobalAveragePool(r1) h = Flatten(g) y = MatMul(h, w2)}}""",
            **weights, b0=normal(1, 8, 1, 1), b1=normal(1, 8, 1, 1), w2=normal(8, 2),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w0")[0] < 8 and shape_of(pruned, "w1")[0] < 8
    assert pruned.choice.rate > 0.4


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_dynamically_quantized_products_lose_neurons(kind: type[np.integer], per_channel: bool) -> None:
    weights = dynamic_weights(kind, (5, 8), (8, 6), per_channel=per_channel, axis=1)
    pruned = prune_channels(
        model(
            """(float[N,5] x) => (float[N,2] y) {
                q0, s0, z0 = DynamicQuantizeLinear(x) a0 = MatMulInteger(q0, w0, z0, p0)
                f0 = Cast<to=1>(a0) t0 = Mul(s0, v0) m0 = Mul(f0, t0) c0 = Add(b0, m0) r0 = Relu(c0)
                q1, s1, z1 = DynamicQuantizeLinear(r0) a1 = MatMulInteger(q1, w1, z1, p1)
                f1 = Cast<to=1>(a1) t1 = Mul(s1, v1) m1 = Mul(f1, t1) c1 = Add(b1, m1) y = MatMul(c1, w2)}""",
            **weights, b0=normal(8), b1=normal(6), w2=normal(6, 2),
        )
    )  # fmt: skip
    assert shape_of(pruned, "w0")[1] < 8 and shape_of(pruned, "w1")[1] < 6
    assert shape_of(pruned, "w1")[0] == shape_of(pruned, "w0")[1]


def test_constants_leave_the_range_of_a_dynamic_quantization_and_what_varies_stays() -> None:
    weights = dynamic_weights(np.int8, (5, 8), (8, 6), per_channel=False, axis=1)
    proto = model(
        """(float[N,5] x) => (float[N,6] y) {
            a = MatMul(x, w) c = Add(a, b) e = Sigmoid(c)
            q1, s1, z1 = DynamicQuantizeLinear(e) a1 = MatMulInteger(q1, w1, z1, p1) f1 = Cast<to=1>(a1)
            t1 = Mul(s1, v1) y = Mul(f1, t1)}""",
        **{name: array for name, array in weights.items() if name.endswith("1")}, w=normal(5, 8), b=normal(8),
    )  # fmt: skip
    # A sigmoid of 0 is 0.5, which others exceed.
    assert shape_of(prune_channels(proto), "w") == (5, 4)
    unread = weight_of(proto, "w1").copy()
    unread[3] = weight_of(proto, "p1")
    replaced = onnx.numpy_helper.from_array(unread, "w1")
    proto.graph.initializer[[tensor.name for tensor in proto.graph.initializer].index("w1")].CopyFrom(
        replaced
    )
    assert weight_of(operate(proto)[0], "w").shape == (5, 8)


def dynamic_weights(
    kind: type[np.integer], *shapes: tuple[int, ...], per_channel: bool, axis: int = 0
) -> dict[str, np.ndarray]:
    """Integers `w0`, `w1`, ... as of a dynamic quantization, their zero points `p` and scales `v`."""
    made: dict[str, np.ndarray] = {}
    limits = np.iinfo(kind)
    for number, shape in enumerate(shapes):
        made[f"w{number}"] = RANDOM.integers(limits.min, limits.max, shape, kind)
        middle = (int(limits.min) + int(limits.max)) // 2
        count = shape[axis] if per_channel else 1
        scales = np.abs(normal(count)) / 50 + np.float32(0.01)
        made[f"v{number}"] = scales.reshape(-1, *[1] * (len(shape) - 2)) if axis == 0 else scales
        # onnxruntime's ConvInteger takes one zero point.
        points = RANDOM.integers(middle - 9, middle + 9, 1 if axis == 0 else count, kind)
        made[f"p{number}"] = points if len(points) > 1 else points.reshape(())
    return made

"""Channels of what onnxruntime's quantizer wrote: without them, the same integers as with them at their zero points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantType

from tests.quantizing import dynamic, optimized, static
from tests.surgery.graphs import attention, normal, recurrent
from tests.surgery.oracle import model, operate, prune_channels, weight_of

SIGNED = {"weights": QuantType.QInt8, "activations": QuantType.QInt8}
ASYMMETRIC = {"weights": QuantType.QUInt8}


def images(body: str, **weights: np.ndarray) -> onnx.ModelProto:
    """Images of 4 x 6 x 6 to 3 numbers."""
    return model(
        f"(float[N,4,6,6] x) => (float[N,3] y) {{{body} f = Flatten(p) y = Gemm<transB=1>(f, wz, bz)}}",
        wz=normal(3, 8), bz=normal(3), **weights,
    )  # fmt: skip


def residual() -> onnx.ModelProto:
    return images(
        """a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) b = Conv<pads=[1,1,1,1]>(r, w2, b2) s = Add(r, b)
        c = Conv(s, w3) p = GlobalAveragePool(c)""",
        w1=normal(8, 4, 3, 3), b1=normal(8), w2=normal(8, 8, 3, 3), b2=normal(8), w3=normal(8, 8, 1, 1),
    )  # fmt: skip


def concatenated() -> onnx.ModelProto:
    return images(
        """a = Conv(x, w1, b1) s = Sigmoid(a) b = Conv(x, w2) l = LeakyRelu<alpha=0.2>(b) c = Concat<axis=1>(s, l)
        m = AveragePool<kernel_shape=[2,2]>(c) d = Conv(m, w3, b3) p = GlobalAveragePool(d)""",
        w1=normal(6, 4, 1, 1), b1=normal(6), w2=normal(6, 4, 1, 1), w3=normal(8, 12, 1, 1), b3=normal(8),
    )  # fmt: skip


def excited() -> onnx.ModelProto:
    return images(
        """a = Conv(x, w1, b1) d = Conv<group=8, pads=[1,1,1,1]>(a, w2, b2) g = GlobalAveragePool(d)
        e = Conv(g, w3, b3) s = Sigmoid(e) m = Mul(d, s) p = GlobalAveragePool(m)""",
        w1=normal(8, 4, 1, 1), b1=normal(8), w2=normal(8, 1, 3, 3), b2=normal(8), w3=normal(8, 8, 1, 1), b3=normal(8),
    )  # fmt: skip


def grouped() -> onnx.ModelProto:
    return images(
        "a = Conv(x, w1, b1) r = Relu(a) g = Conv<group=4>(r, w2, b2) t = MaxPool<kernel_shape=[2,2]>(g) "
        "p = GlobalAveragePool(t)",
        w1=normal(8, 4, 1, 1), b1=normal(8), w2=normal(8, 2, 3, 3), b2=normal(8),
    )  # fmt: skip


def perceptron() -> onnx.ModelProto:
    return model(
        """(float[N,6] x) => (float[N,3] y) {
            a = Gemm<transB=1>(x, w1, b1) r = Relu(a) b = MatMul(r, w2) c = Gemm(r, w4, b4) e = Mul(c, b)
            y = Gemm(e, w3, b3)}""",
        w1=normal(8, 6), b1=normal(8), w2=normal(8, 10), w4=normal(8, 10), b4=normal(10), w3=normal(10, 3),
        b3=normal(3),
    )  # fmt: skip


def heads() -> onnx.ModelProto:
    return attention(4, 8, "7", computed=False, fused=False)


GRAPHS: dict[str, tuple[Callable[[], onnx.ModelProto], set[str]]] = {
    "residual": (residual, {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm"}),
    "concatenated": (
        concatenated,
        {"QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool"},
    ),
    "excited": (excited, {"QLinearMul", "QLinearSigmoid"}),
    "grouped": (grouped, {"QLinearConv", "MaxPool"}),
    "perceptron": (perceptron, {"QGemm", "QLinearMatMul", "QLinearMul"}),
    "attention": (heads, {"QLinearMatMul", "QLinearSoftmax", "QLinearAdd"}),
}
FORMS = {
    "per channel": {"per_channel": True},
    "one scale": {},
    "asymmetric": ASYMMETRIC,
    "signed": SIGNED,
}


def inputs_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    value = proto.graph.input[0]
    return {value.name: normal(*(dim.dim_value or 4 for dim in value.type.tensor_type.shape.dim))}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", GRAPHS)
def test_channels_of_operators_of_integers_are_removed_without_a_change(name: str, form: str) -> None:
    build, expected = GRAPHS[name]
    proto = build()
    quantized = static(proto, inputs_of(proto), **FORMS[form])
    assert expected <= {node.op_type for node in quantized.graph.node}
    pruned = prune_channels(quantized, tolerance=0)
    assert not pruned.choice.stuck, pruned.choice.stuck
    assert pruned.choice.rate == pytest.approx(0.5, abs=0.15)
    for node in pruned.model.graph.node:
        if node.op_type == "QLinearConv":
            filters, scales, points = (weight_of(pruned.model, node.input[place]) for place in (3, 4, 5))
            assert scales.size == points.size and scales.size in (1, len(filters))
            biased = len(node.input) > 8 and node.input[8]
            assert not biased or weight_of(pruned.model, node.input[8]).shape == (len(filters),)


@pytest.mark.parametrize("form", FORMS)
def test_constants_move_into_biases_of_integers(form: str) -> None:
    proto = images(
        """a = Conv(x, w1, b1) s = Sigmoid(a) b = Conv(s, w2) c = Add(b, b3) d = Concat<axis=1>(b, c)
        e = Conv(d, w3, b4) p = GlobalAveragePool(e)""",
        w1=normal(8, 4, 1, 1), b1=normal(8), w2=normal(6, 8, 1, 1), b3=normal(6, 1, 1), w3=normal(8, 12, 1, 1),
        b4=normal(8),
    )  # fmt: skip
    for name, dead in (("w1", 5), ("w2", 2), ("w3", 3)):
        weight = weight_of(proto, name).copy()
        weight[:dead] = 0
        _replace(proto, name, weight)
    quantized = static(proto, inputs_of(proto), **FORMS[form])
    assert "w2" in {
        node.input[3].removesuffix("_quantized") for node in quantized.graph.node if len(node.input) > 3
    }
    after, report = operate(quantized, tolerance=0)
    shapes = {layer.name: layer.outputs_after for layer in report.layers}
    assert shapes == {"w1_quantized": 3, "w2_quantized": 4, "w3_quantized": 5, "wz_quantized": 3}
    biased = [node for node in after.graph.node if node.op_type == "QLinearConv"]
    assert all(weight_of(after, node.input[8]).dtype == np.int32 for node in biased), "w2 had no bias before"


def test_a_constant_that_is_not_zero_stays_in_front_of_a_padded_convolution_of_integers() -> None:
    proto = images(
        "a = Conv(x, w1, b1) b = Conv<pads=[1,1,1,1]>(a, w2) p = GlobalAveragePool(b)",
        w1=normal(8, 4, 1, 1), b1=np.float32([0, 1, 1, 1, 1, 1, 1, 1]), w2=normal(8, 8, 3, 3),
    )  # fmt: skip
    weight = weight_of(proto, "w1").copy()
    weight[:3] = 0
    _replace(proto, "w1", weight)
    _, report = operate(static(proto, inputs_of(proto), **ASYMMETRIC), tolerance=0)
    assert report.layers[0].outputs_after == 7, "the one whose constant is the zero point"
    assert "borders of a padded convolution" in report.kept_dead[0].reason


def test_zero_points_and_scales_that_layers_share_do_not_couple_them() -> None:
    proto = residual()
    quantized = static(proto, inputs_of(proto), per_channel=True)
    for node in quantized.graph.node:
        if node.op_type == "QLinearConv":
            node.input[5] = "w1_zero_point"
    pruned = prune_channels(quantized, tolerance=0)
    counts = {layer.name: layer.outputs_after for layer in pruned.report.layers}
    assert counts["w1_quantized"] < 8 and counts["w3_quantized"] < 8
    groups = [{name for name, _ in group} for group in pruned.groups.positions]
    assert not any({"w1_quantized", "w3_quantized"} <= group and "wz_quantized" in group for group in groups)


def test_a_choice_between_values_of_integers_passes_channels() -> None:
    numbers = {"s": np.float32(0.05), "z": np.uint8(120), "s2": np.float32(0.03), "z2": np.uint8(9)}
    proto = model(
        """(float[N,6] x) => (float[N,3] y) {
            a = MatMul(x, w1) b = MatMul(x, w2) p = QuantizeLinear(a, s, z) q = QuantizeLinear(b, s2, z2)
            r = com.microsoft.QLinearWhere(chosen, p, s, z, q, s2, z2, s, z) d = DequantizeLinear(r, s, z)
            y = MatMul(d, w3)}""",
        w1=normal(6, 8), w2=normal(6, 8), w3=normal(8, 3), chosen=np.arange(8) % 3 > 0, **numbers,
    )  # fmt: skip
    pruned = prune_channels(proto, tolerance=0)
    assert weight_of(pruned.model, "chosen").shape == (4,)


def test_weights_whose_zero_point_is_not_known_are_read_everywhere() -> None:
    """A stored 0 is not zero there: the zero point is computed."""
    proto = model(
        """(float[N,4] x) => (float[N,3] y) {
            a = MatMul(x, w) q = QuantizeLinear(a, s, o) t, u, z = DynamicQuantizeLinear(x)
            h = MatMulInteger(q, v, o, z) f = Cast<to=1>(h) y = Identity(f)}""",
        w=normal(4, 8), v=np.zeros((8, 3), np.uint8), s=np.float32(0.1), o=np.uint8(128),
    )  # fmt: skip
    after, _ = operate(proto, tolerance=0)
    assert weight_of(after, "w").shape == (4, 8)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("weights", [QuantType.QInt8, QuantType.QUInt8])
def test_what_onnxruntime_fuses_of_a_dynamic_quantization_loses_heads(
    per_channel: bool, weights: QuantType
) -> None:
    fused = optimized(dynamic(heads(), per_channel=per_channel, weights=weights))
    assert {"MatMulIntegerToFloat", "DynamicQuantizeMatMul"} <= {node.op_type for node in fused.graph.node}
    pruned = prune_channels(fused, tolerance=1e-6)
    assert not pruned.choice.stuck and pruned.choice.rate == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("directions", "initial"), [(1, "none"), (2, "none"), (2, "computed")])
def test_dynamically_quantized_recurrent_layers_lose_units(
    directions: int, initial: str, per_channel: bool
) -> None:
    proto = recurrent("LSTM", directions, initial)
    quantized = dynamic(proto, per_channel=per_channel)
    assert [node.op_type for node in quantized.graph.node].count("DynamicQuantizeLSTM") == 2
    pruned = prune_channels(quantized, tolerance=1e-6)
    assert not pruned.choice.stuck and pruned.choice.rate == pytest.approx(0.5, abs=0.15)
    sizes = [
        next(attribute.i for attribute in node.attribute if attribute.name == "hidden_size")
        for node in pruned.model.graph.node
        if node.op_type == "DynamicQuantizeLSTM"
    ]
    assert sizes[0] < 8 and sizes[1] < 4


def test_a_state_that_is_not_zero_at_first_keeps_the_units_of_a_quantized_layer() -> None:
    """The unit's state would be in the range of all, whatever its weights."""
    quantized = dynamic(recurrent("LSTM", 1, "constant"))
    pruned = prune_channels(quantized, tolerance=1e-6)
    assert weight_of(pruned.model, "r_quantized").shape == (1, 8, 32)
    assert weight_of(pruned.model, "r2_quantized").shape[1] < 4


def _replace(proto: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))

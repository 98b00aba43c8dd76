"""Quantized layers as other tools read them: standard operators of floats between DequantizeLinear and QuantizeLinear.

    QLinearConv(x, xs, xz, w, ws, wz, ys, yz, b)
        -> QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w), DequantizeLinear(b)), ys, yz)

onnxruntime fuses this form back to the operators of integers that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.operands import operand
from onnxprune.model.shapes.inference import MICROSOFT


@dataclass(frozen=True)
class Layer:
    """A quantized operator: the standard one, and which of its inputs are what.

    `operands`: the index of each quantized input, which its scale and zero point follow; `output`: that of the scale of
    the output, which its zero point follows; `bias`: that of an int32 bias, in units of the first two scales.
    `channel`: the axis of the second operand that scales of several channels are along.
    """

    op_type: str
    operands: tuple[int, ...]
    output: int
    bias: int | None = None
    channel: Callable[[ir.Node], int] = lambda node: 0


UNARY = ((0,), 3)
BINARY = ((0, 3), 6)
LAYERS: Mapping[tuple[str, str], Layer] = {
    ("", "QLinearConv"): Layer("Conv", *BINARY, bias=8),
    ("", "QLinearMatMul"): Layer("MatMul", *BINARY, channel=lambda node: -1),
    (MICROSOFT, "QGemm"): Layer(
        "Gemm", (0, 3), 7, bias=6, channel=lambda node: 0 if node.attributes.get_int("transB", 0) else 1
    ),
    (MICROSOFT, "QLinearAdd"): Layer("Add", *BINARY),
    (MICROSOFT, "QLinearMul"): Layer("Mul", *BINARY),
    (MICROSOFT, "QLinearSigmoid"): Layer("Sigmoid", *UNARY),
    (MICROSOFT, "QLinearLeakyRelu"): Layer("LeakyRelu", *UNARY),
    (MICROSOFT, "QLinearAveragePool"): Layer("AveragePool", *UNARY),
    (MICROSOFT, "QLinearGlobalAveragePool"): Layer("GlobalAveragePool", *UNARY),
}
PER_CHANNEL_OPSET = 13
# Attributes of operators of com.microsoft that the standard ones do not have, and the only value that they may have.
OWN_ATTRIBUTES = {"channels_last": 0}


def to_qdq(model: ir.Model) -> tuple[str, ...]:
    """Replace quantized operators, in place; returns the types of those that are left, which have no such form."""
    # DequantizeLinear has no axis before.
    channels = model.opset_imports.get("", 0) >= PER_CHANNEL_OPSET
    left = []
    for node in list(model.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        layer = LAYERS.get((domain, node.op_type))
        if layer is not None and _fits(node, layer, channels):
            _replace(node, layer)
        elif layer is not None or node.op_type.startswith("QLinear"):
            left.append(node.op_type)
    if not any(node.domain == MICROSOFT for node in model.graph.all_nodes()):
        model.opset_imports.pop(MICROSOFT, None)
    return tuple(dict.fromkeys(left))


def _fits(node: ir.Node, layer: Layer, channels: bool) -> bool:
    """Whether the standard operator does the same: own attributes at their defaults, known scales, quantized output."""
    plain = all(node.attributes.get_int(name, value) == value for name, value in OWN_ATTRIBUTES.items())
    # The unit of the bias of a scaled product is not that of its operands.
    scaled = layer.op_type == "Gemm" and node.attributes.get_float("alpha", 1.0) != 1.0
    scales = [constant_tensor(node.inputs[place + 1]) for place in layer.operands]
    known = all(scale is not None and (channels or scale.size == 1) for scale in scales)
    # Without a zero point the output of QGemm is in floats.
    outcome = node.inputs[layer.output : layer.output + 2]
    return plain and not scaled and known and len(outcome) == 2 and None not in outcome


def _replace(node: ir.Node, layer: Layer) -> None:
    graph, output = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    made: list[ir.Node] = []
    inputs = [_dequantized(node, place, layer, number, made) for number, place in enumerate(layer.operands)]
    bias = operand(node, layer.bias)
    if bias is not None:
        inputs.append(_float_bias(node, bias, layer, made))
    attributes = [value for name, value in node.attributes.items() if name not in OWN_ATTRIBUTES]
    computed = ir.Node("", layer.op_type, inputs, attributes, name=node.name)
    computed.outputs[0].name = f"{output.name}_float"
    scale, zero_point = (*node.inputs[layer.output :], None)[:2]
    quantize = ir.Node(
        "", "QuantizeLinear", [computed.outputs[0], scale, zero_point], name=f"{node.name}_quantize"
    )
    name, output.name = output.name, None
    quantize.outputs[0].name = name
    quantize.outputs[0].shape, quantize.outputs[0].type = output.shape, output.type
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [*made, computed, quantize], [output], [quantize.outputs[0]]
    )


def _dequantized(
    node: ir.Node, place: int, layer: Layer, number: int, made: list[ir.Node]
) -> ir.Value | None:
    """An operand in floats, by a node in front."""
    value, scale, zero_point = node.inputs[place : place + 3]
    return _dequantize(node, value, scale, zero_point, layer.channel(node) if number else 0, made)


def _float_bias(node: ir.Node, bias: ir.Value, layer: Layer, made: list[ir.Node]) -> ir.Value | None:
    """The int32 bias in floats: its scale is the product of those of the operands."""
    scales = [constant_tensor(node.inputs[place + 1]) for place in layer.operands]
    assert all(scale is not None for scale in scales)
    product = np.prod(np.broadcast_arrays(*(scale.numpy() for scale in scales if scale is not None)), axis=0)
    name = f"{bias.name}_scale"
    scale = ir.Value(name=name, const_value=ir.Tensor(product.astype(np.float32), name=name))
    scale.dtype, scale.shape = ir.DataType.FLOAT, ir.Shape(product.shape)
    assert isinstance(node.graph, ir.Graph)
    node.graph.register_initializer(scale)
    return _dequantize(node, bias, scale, None, 0, made)


def _dequantize(
    node: ir.Node,
    value: ir.Value | None,
    scale: ir.Value | None,
    zero_point: ir.Value | None,
    axis: int,
    made: list[ir.Node],
) -> ir.Value:
    assert value is not None and scale is not None
    inputs = [value, scale] if zero_point is None else [value, scale, zero_point]
    name = f"{node.name}_dequantize_{len(made)}"
    attributes = [ir.AttrInt64("axis", axis)] if len(scale.shape or ()) else []
    made.append(ir.Node("", "DequantizeLinear", inputs, attributes, name=name))
    made[-1].outputs[0].name = name
    return made[-1].outputs[0]

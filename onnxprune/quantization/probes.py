"""What each channel of a model's values is on a batch, as further outputs of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.quantization.ranges import prepared

Measure = Literal["mean", "largest"]
# From there on ReduceMean and ReduceMax take their axes as an input.
AXES_AS_INPUT = 18


class Probe(NamedTuple):
    """A value, its number of axes, and the one of its channels."""

    value: ir.Value
    rank: int
    axis: int


def with_ranges(model: ir.Model, probes: Sequence[Probe]) -> ir.Model:
    """A copy of a model whose outputs are the largest magnitudes (channels,) of each probe, in order."""
    copy, _ = prepared(model)
    values = {output.name: output for node in copy.graph for output in node.outputs}
    found = [(_add(copy, "Abs", [values[probe.value.name]]), probe) for probe in probes]
    return _reduced(copy, found, "ReduceMax")


def with_rounding_errors(
    model: ir.Model, made: ir.Model, probes: Sequence[Probe]
) -> tuple[ir.Model, list[Probe]]:
    """A copy of a model whose outputs are the means (channels,) of what rounding changes in layers; and which layers.

    `made`: the simulated model; `probes`: of the outputs of layers, those that are not rounded are left out. Each layer
    reads what it has in floats, rounded as in `made`, with its weight rounded: errors of layers before it are not in
    it.
    """
    copy, names = prepared(model)
    here, there = ({node.name: node for node in each.graph} for each in (copy, made))
    found = []
    for probe in probes:
        producer = probe.value.producer()
        name = "" if producer is None else names[producer]
        again = _rounded(copy, here[name], there[name]) if name in there else None
        if again is not None:
            found.append((_add(copy, "Sub", [again, here[name].outputs[0]]), probe))
    return _reduced(copy, found, "ReduceMean"), [probe for _, probe in found]


def _rounded(copy: ir.Model, node: ir.Node, rounded: ir.Node) -> ir.Value | None:
    """What a layer gives if its input and weight are rounded as those of its counterpart in the simulated model."""
    inputs = list(node.inputs)
    for index in (0, 1):
        operand = rounded.inputs[index]
        pair = None if operand is None else operand.producer()
        if pair is None or pair.op_type != "DequantizeLinear":
            return None
        constants = [constant_tensor(value) for value in pair.inputs[1:3]]
        parts = [
            _constant(copy, each.numpy(), f"{node.name}.{index}.{part}")
            for part, each in zip(("scale", "zero"), constants, strict=True)
            if each is not None
        ]
        value: ir.Value | None = inputs[index]
        for op_type in ("QuantizeLinear", "DequantizeLinear"):
            value = _add(copy, op_type, [value, *parts], tuple(pair.attributes.values()))
        inputs[index] = value
    return _add(copy, node.op_type, inputs, tuple(node.attributes.values()))


def _reduced(copy: ir.Model, values: Sequence[tuple[ir.Value, Probe]], op_type: str) -> ir.Model:
    """The model with each value reduced to its channels as its outputs, and no others."""
    copy.graph.outputs.clear()
    for number, (value, probe) in enumerate(values):
        axes = [axis for axis in range(probe.rank) if axis != probe.axis]
        operands: list[ir.Value | None] = [value]
        attributes = [ir.AttrInt64("keepdims", 0)]
        if copy.opset_imports.get("", 1) >= AXES_AS_INPUT:
            operands.append(_constant(copy, np.array(axes, np.int64), f"probe{number}.axes"))
        else:
            attributes.append(ir.AttrInt64s("axes", axes))
        output = _add(copy, op_type, operands, attributes)
        output.name = f"probe{number}"
        output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None])
        copy.graph.outputs.append(output)
    return copy


def _constant(copy: ir.Model, array: np.ndarray, name: str) -> ir.Value:
    value = ir.Value(name=f"{name}.probe", const_value=ir.Tensor(array))
    copy.graph.register_initializer(value)
    return value


def _add(
    copy: ir.Model, op_type: str, operands: Sequence[ir.Value | None], attributes: Sequence[ir.Attr] = ()
) -> ir.Value:
    node = ir.Node("", op_type, operands, attributes)
    copy.graph.append(node)
    return node.outputs[0]

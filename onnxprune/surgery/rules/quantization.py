"""QuantizeLinear and DequantizeLinear: y = (x - zero_point) * scale, for a whole tensor or for each channel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.tables import Axis, Coupling, passes_channels, passes_constants


@passes_channels("QuantizeLinear", "DequantizeLinear")
def quantization(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple every axis, and per-channel scales and zero points with the channels; blocked quantization is frozen."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    parameters = [(value, facts.shape(value)) for value in node.inputs[1:] if value is not None]
    if data is None or shape is None or node.attributes.get_int("block_size", 0) > 0:
        return
    if any(known is None or len(known) > 1 for _, known in parameters):
        return
    yield from couple_axes(data, node.outputs[0], range(len(shape)), facts)
    for value, known in parameters:
        if known and known[0] != 1:
            axis = node.attributes.get_int("axis", 1) % len(shape)
            yield Coupling(Axis(value, 0), Axis(node.outputs[0], axis))


@passes_constants("QuantizeLinear", "DequantizeLinear")
def quantization_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Run the node on the known elements."""
    known, shape = facts.known(node.inputs[0]), facts.shape(node.inputs[0])
    parameters = [facts.constant(value) for value in node.inputs[1:]]
    if known is None or shape is None or any(array is None for array in parameters):
        return None
    full = known.shape
    if any(array is not None and array.size > 1 for array in parameters):
        axis = node.attributes.get_int("axis", 1) % len(shape)
        length = facts.length(Axis(node.outputs[0], axis))
        if length is None:
            return None
        full = tuple(length if index == axis else dim for index, dim in enumerate(known.shape))
    data = np.ascontiguousarray(np.broadcast_to(known.filled(0), full))
    result = facts.evaluate(node, [data, *parameters])
    return (
        None if result is None else np.ma.array(result, mask=np.broadcast_to(np.ma.getmaskarray(known), full))
    )

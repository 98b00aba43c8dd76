"""DynamicQuantizeLinear, and the constants of the products behind it: Y = (A - a) (B - b), perhaps scaled to floats.

DynamicQuantizeLinear takes scale and zero point from the range of all its elements and 0. A channel leaves it where it
is a constant: without a change if that is 0, else the range can become smaller, and its steps finer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.encoding import on_axis
from onnxprune.model.slots import MICROSOFT
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.rules.contraction import measured
from onnxprune.surgery.rules.convolution import groups_of
from onnxprune.surgery.rules.matmul import addend
from onnxprune.surgery.tables import Axis, Claim, passes_channels, passes_constants


@passes_channels("DynamicQuantizeLinear")
def dynamic_quantization(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple every axis; a position is needed unless it is a constant."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    if data is not None and shape is not None:
        yield from measured(node, data, facts)
        yield from couple_axes(data, node.outputs[0], range(len(shape)), facts)


@passes_constants("ConvInteger", "MatMulInteger")
@passes_constants("MatMulIntegerToFloat", "DynamicQuantizeMatMul", domain=MICROSOFT)
def integer_product_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """An output whose weights are all at their zero points is 0, or what is added to it."""
    weight, shape = node.inputs[1], facts.shape(node.outputs[0])
    if weight is None or shape is None or facts.shape(weight) is None:
        return None
    convolution = node.op_type == "ConvInteger"
    if not convolution and facts.rank(weight) != 2:
        return None
    axes = (0, 1) if convolution else (1, 0)
    connections = facts.connections(weight, *axes)
    inputs = facts.length(Axis(weight, axes[1]))
    if connections is None or inputs is None:
        return None
    reads = connections.readers(np.ones((groups_of(node) if convolution else 1, inputs), bool))
    sums = np.ma.array(np.zeros(len(reads), np.int32), mask=reads)
    zeros = on_axis(sums, 1 if convolution else len(shape) - 1, len(shape))
    if addend(node) is None:
        return zeros
    known = facts.known(addend(node))
    return None if known is None else zeros.astype(known.dtype) + known

"""Integer products: Y = (A - a) (B - b), of MatMulInteger and ConvInteger, and DynamicQuantizeLinear in front of them.

DynamicQuantizeLinear takes scale and zero point from the range of all its elements and 0. A channel leaves it where it
is a constant: without a change if that is 0, else the range can become smaller, and its steps finer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.rules.contraction import on_axis
from onnxprune.surgery.rules.convolution import convolved, groups_of, static_channels
from onnxprune.surgery.rules.matmul import multiplied
from onnxprune.surgery.tables import Axis, Claim, Contraction, Coupling, passes_channels, passes_constants


@passes_channels("DynamicQuantizeLinear")
def dynamic_quantization(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple every axis; a position is needed unless it is a constant."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    if data is None or shape is None:
        return
    for axis, length in enumerate(shape):
        if isinstance(length, int):
            at = Axis(data, axis)
            yield Contraction(node, at, at, None, None, measures=True)
    yield from couple_axes(data, node.outputs[0], range(len(shape)), facts)


@passes_channels("ConvInteger")
def conv_integer(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """As Conv; zero points of filters go with these."""
    if static_channels(node, facts) and _is_one(_zero_point(node, 2), facts):
        filters = _filter_zero_points(node, facts, Axis(node.outputs[0], 1))
        if filters is not None and not _is_known(node.inputs[0], facts):
            yield from filters
            yield from convolved(node, _refusal(node), facts)


@passes_channels("MatMulInteger")
def matmul_integer(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """As MatMul; zero points of columns go with these."""
    shape = facts.shape(node.outputs[0])
    if shape is not None and _is_one(_zero_point(node, 2), facts):
        columns = _filter_zero_points(node, facts, Axis(node.outputs[0], len(shape) - 1))
        if columns is not None and not _is_known(node.inputs[0], facts):
            yield from columns
            yield from multiplied(node, facts)


@passes_constants("ConvInteger", "MatMulInteger")
def integer_product_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """An output whose weights are all at their zero points is 0."""
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
    groups = groups_of(node) if convolution else 1
    reads = connections.readers(np.ones((groups, inputs), bool))
    zeros = np.ma.array(np.zeros(len(reads), np.int32), mask=reads)
    return on_axis(zeros, 1 if convolution else len(shape) - 1, len(shape))


def _zero_point(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _is_one(value: ir.Value | None, facts: Facts) -> bool:
    """Whether there is one zero point for all, or none."""
    shape = facts.shape(value)
    return value is None or (shape is not None and all(length == 1 for length in shape))


def _filter_zero_points(node: ir.Node, facts: Facts, out: Axis) -> tuple[Coupling, ...] | None:
    """How the zero points of a weight are coupled with the outputs; None where that is not known."""
    value = _zero_point(node, 3)
    if value is None or _is_one(value, facts):
        return ()
    shape = facts.shape(value)
    return (Coupling(Axis(value, 0), out),) if shape is not None and shape == (facts.length(out),) else None


def _is_known(data: ir.Value | None, facts: Facts) -> bool:
    """Whether elements of the data are constants: they are integers, whose zero is the zero point."""
    return facts.known(data) is not None


def _refusal(node: ir.Node) -> str:
    return f"{node.op_type} {node.name!r} reads it, and has no bias to add its constant to"

"""Conv: Y[n, o, p] = B[o] + sum over i, q of W[o, i, q] * X[n, i, p + q], 1-D to 3-D.

A grouped convolution (depthwise with groups of one) keeps its units in step: all inputs and outputs of a group go
together, and `group` counts those that stay.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.constants import add_to_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.rules.contraction import contract_constants, on_axis
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Contraction,
    Coupling,
    SizeOf,
    passes_channels,
    passes_constants,
    rewrites,
    takes_bias,
)

PADDED = "its constant is not the same at the borders of a padded convolution"


@passes_channels("Conv")
def conv(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Filters with output channels and biases; input channels with the filters' own."""
    data, weight = node.inputs[0], node.inputs[1]
    out = node.outputs[0]
    if data is None or weight is None or not _static_channels(node, facts):
        return
    yield from couple_axes(data, out, (0,), facts)
    bias = _bias(node)
    if bias is not None:
        yield Coupling(Axis(bias, 0), Axis(out, 1))
    if _groups(node) == 1:
        yield Contraction(
            node, Axis(data, 1), Axis(weight, 1), Axis(weight, 0), Axis(out, 1), refusal=_refusal(node, facts)
        )
    else:
        yield from _grouped(node, data, weight, facts)


def _grouped(node: ir.Node, data: ir.Value, weight: ir.Value, facts: Facts) -> Iterator[Coupling]:
    groups, out = _groups(node), Axis(node.outputs[0], 1)
    filters, channels = facts.length(out), facts.length(Axis(data, 1))
    assert filters is not None and channels is not None
    first_filter = np.arange(groups) * (filters // groups)
    yield Coupling(Axis(weight, 0), out)
    yield Coupling(out, out, np.arange(filters), np.repeat(first_filter, filters // groups))
    yield Coupling(Axis(data, 1), out, np.arange(channels), np.repeat(first_filter, channels // groups))


@passes_constants("Conv")
def conv_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """A filter that reads constants only makes a constant; at padded borders, one that reads zeros only."""
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None or not _static_channels(node, facts):
        return None
    total = contract_constants(
        Axis(data, 1), Axis(weight, 1), Axis(weight, 0), facts, groups=_groups(node), zero_only=_padded(node)
    )
    bias = facts.known(_bias(node))
    if total is None or (_bias(node) is not None and bias is None):
        return None
    return on_axis(total if bias is None else total + bias, 1, facts.rank(data))


@rewrites("Conv")
def conv_groups(node: ir.Node, facts: Facts, size_of: SizeOf) -> None:
    """The groups that stay."""
    assert node.inputs[0] is not None
    before, after = size_of(Axis(node.inputs[0], 1))
    if _groups(node) > 1 and after != before:
        node.attributes["group"] = ir.AttrInt64("group", _groups(node) * after // before)


@takes_bias("Conv")
def conv_bias(node: ir.Node, facts: Facts, axis: int, delta: np.ndarray, dtype: ir.DataType) -> None:
    """B + delta."""
    add_to_operand(node, 2, delta, dtype)


def _static_channels(node: ir.Node, facts: Facts) -> bool:
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None:
        return False
    channels, filters = facts.length(Axis(data, 1)), facts.length(Axis(weight, 0))
    per_filter = facts.length(Axis(weight, 1))
    if channels is None or filters is None or per_filter is None:
        return False
    return channels == per_filter * _groups(node) and filters == facts.length(Axis(node.outputs[0], 1))


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _groups(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def _padded(node: ir.Node) -> bool:
    return node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME") or any(
        node.attributes.get_ints("pads", ())
    )


def _refusal(node: ir.Node, facts: Facts) -> str | None:
    if _padded(node):
        return f"{PADDED}, {node.name!r}"
    if _bias(node) is not None and facts.stored(_bias(node)) is None:
        return f"the bias of Conv {node.name!r} is computed in the graph, so nothing can be added to it"
    return None

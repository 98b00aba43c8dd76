"""Conv: Y[n, o, p] = B[o] + sum over i, q of W[o, i, q] * X[n, i, p + q], 1-D to 3-D; and ConvTranspose.

A grouped convolution can lose whole groups, inputs and outputs together, which reduces `group`; or every group loses
the same of its inputs or outputs. A depthwise convolution has groups of one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.encoding import on_axis
from onnxprune.model.names import name_of
from onnxprune.model.operands import operand
from onnxprune.model.slots import MICROSOFT, slots
from onnxprune.surgery.constants import add_to_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes, freeze_unknown
from onnxprune.surgery.rules.contraction import contract_constants
from onnxprune.surgery.rules.scales import couple_scales, only_number
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Contraction,
    Coupling,
    Kept,
    OneOf,
    Stays,
    passes_channels,
    passes_constants,
    rewrites,
    takes_bias,
)

BIAS = {"Conv": 2, "ConvTranspose": 2, "FusedConv": 2, "QLinearConv": 8}
ADDED = 3  # what FusedConv adds
DATA_ZERO = {"ConvInteger": 2, "QLinearConv": 2}
PADDED = "its constant is not the same at the borders of a padded convolution"


@passes_channels("Conv", "ConvInteger", "QLinearConv")
@passes_channels("FusedConv", domain=MICROSOFT)
def conv(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple filters with output channels, biases and scales, and input channels with those of the filters."""
    data, weight, out = node.inputs[0], filters_of(node), node.outputs[0]
    scales = couple_scales(node, _filters(node), Axis(out, 1), facts)
    if data is None or weight is None or scales is None or not static_channels(node, facts):
        return
    yield from scales
    bias = bias_of(node)
    if bias is not None:
        yield Coupling(Axis(bias, 0), Axis(out, 1))
    added = operand(node, ADDED) if node.op_type == "FusedConv" else None
    if added is not None:
        yield from freeze_unknown([added], out, facts)
        yield from couple_axes(added, out, (0, 1), facts)
    yield from couple_axes(data, out, (0,), facts)
    if groups_of(node) == 1:
        yield Contraction(
            node,
            Axis(data, 1),
            Axis(weight, 1),
            Axis(weight, 0),
            Axis(out, 1),
            refusal=_refusal(node, facts),
            zero=only_number(operand(node, DATA_ZERO.get(node.op_type)), facts),
        )
    else:
        yield from _grouped(node, data, weight, facts)


@passes_channels("ConvTranspose")
def conv_transpose(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Like Conv, with a weight (inputs, outputs / group, ...)."""
    data, weight, out = node.inputs[0], node.inputs[1], node.outputs[0]
    if data is None or weight is None or facts.length(Axis(data, 1)) != facts.length(Axis(weight, 0)):
        return
    per_group, filters = facts.length(Axis(weight, 1)), facts.length(Axis(out, 1))
    if per_group is None or filters != per_group * groups_of(node):
        return
    yield from couple_axes(data, out, (0,), facts)
    bias = bias_of(node)
    if bias is not None:
        yield Coupling(Axis(bias, 0), Axis(out, 1))
    if groups_of(node) == 1:
        refusal = f"its constant is not the same everywhere after ConvTranspose {name_of(node)!r}"
        yield Contraction(
            node, Axis(data, 1), Axis(weight, 0), Axis(weight, 1), Axis(out, 1), refusal=refusal
        )
    else:
        yield Coupling(Axis(weight, 0), Axis(data, 1))
        yield from _in_step(data, out, groups_of(node), facts)
        yield Stays(Axis(weight, 1), "the filters of a group can only be removed with the whole group")


@passes_constants("ConvTranspose")
def conv_transpose_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """A filter that reads only zeros is constant: its output is its bias."""
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None or groups_of(node) > 1 or facts.length(Axis(data, 1)) is None:
        return None
    total = contract_constants(Axis(data, 1), Axis(weight, 0), Axis(weight, 1), facts, zero_only=True)
    bias = facts.known(bias_of(node))
    if total is None or (bias_of(node) is not None and bias is None):
        return None
    return on_axis(total if bias is None else total + bias, 1, facts.rank(data))


def _grouped(node: ir.Node, data: ir.Value, weight: ir.Value, facts: Facts) -> Iterator[Claim]:
    out, groups = Axis(node.outputs[0], 1), groups_of(node)
    whole = (Coupling(Axis(weight, 0), out), *_in_step(data, node.outputs[0], groups, facts))
    shared = Axis(weight, 1)
    channels, filters, per_group = (facts.length(axis) for axis in (Axis(data, 1), out, shared))
    assert channels is not None and filters is not None and per_group is not None
    if per_group == 1:
        yield from whole
        return
    per_filter, inputs, outputs = filters // groups, np.arange(channels), np.arange(filters)
    yield OneOf(
        (
            whole,
            (
                Coupling(Axis(weight, 0), out),
                Coupling(out, out, outputs, outputs % per_filter),
                Coupling(Axis(data, 1), shared, inputs, inputs % per_group),
                # All groups read their inputs through the same axis of the weight.
                Contraction(
                    node, shared, shared, None, None, refusal=f"grouped Conv {name_of(node)!r} reads it"
                ),
            ),
        )
    )


def _in_step(data: ir.Value, out: ir.Value, groups: int, facts: Facts) -> Iterator[Coupling]:
    """Couple all inputs and outputs of a group with its first output."""
    channels, filters = facts.length(Axis(data, 1)), facts.length(Axis(out, 1))
    assert filters is not None and channels is not None
    first_filter = np.arange(groups) * (filters // groups)
    for axis, length in ((Axis(out, 1), filters), (Axis(data, 1), channels)):
        yield Coupling(axis, Axis(out, 1), np.arange(length), np.repeat(first_filter, length // groups))


@passes_constants("Conv")
def conv_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """A filter that reads only constants is constant; with padding, only one that reads zeros."""
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None or not static_channels(node, facts):
        return None
    total = contract_constants(
        Axis(data, 1),
        Axis(weight, 1),
        Axis(weight, 0),
        facts,
        groups=groups_of(node),
        zero_only=padded(node),
    )
    bias = facts.known(bias_of(node))
    if total is None or (bias_of(node) is not None and bias is None):
        return None
    return on_axis(total if bias is None else total + bias, 1, facts.rank(data))


@rewrites("Conv", "ConvInteger", "ConvTranspose", "QLinearConv")
@rewrites("FusedConv", domain=MICROSOFT)
def conv_groups(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the number of groups."""
    data, weight = node.inputs[0], filters_of(node)
    assert data is not None and weight is not None
    kept = kept_of(Axis(data, 1))
    if groups_of(node) > 1 and not kept.all() and kept_of(Axis(weight, 1)).all():
        node.attributes["group"] = ir.AttrInt64("group", groups_of(node) * int(kept.sum()) // len(kept))


@takes_bias("QLinearConv")
def qlinear_conv_bias(node: ir.Node, facts: Facts, axis: int, delta: np.ndarray, dtype: ir.DataType) -> None:
    """B + delta, in steps of the data times those of the filters."""
    add_to_operand(node, BIAS[node.op_type], delta, ir.DataType.INT32)


@takes_bias("Conv")
@takes_bias("FusedConv", domain=MICROSOFT)
def conv_bias(node: ir.Node, facts: Facts, axis: int, delta: np.ndarray, dtype: ir.DataType) -> None:
    """B + delta."""
    add_to_operand(node, 2, delta, dtype)


def static_channels(node: ir.Node, facts: Facts) -> bool:
    """Whether the channels of a convolution and of its filters are known, and fit each other."""
    data, weight = node.inputs[0], filters_of(node)
    if data is None or weight is None:
        return False
    channels, filters = facts.length(Axis(data, 1)), facts.length(Axis(weight, 0))
    per_filter = facts.length(Axis(weight, 1))
    if channels is None or filters is None or per_filter is None:
        return False
    return channels == per_filter * groups_of(node) and filters == facts.length(Axis(node.outputs[0], 1))


def filters_of(node: ir.Node) -> ir.Value | None:
    """The filters of a convolution."""
    return node.inputs[_filters(node)]


def _filters(node: ir.Node) -> int:
    return slots(node)[0].input_index


def bias_of(node: ir.Node) -> ir.Value | None:
    """The bias of a convolution, if it has one."""
    return operand(node, BIAS.get(node.op_type))


def groups_of(node: ir.Node) -> int:
    """The number of groups of a convolution."""
    return node.attributes.get_int("group", 1)


def padded(node: ir.Node) -> bool:
    """Whether the borders of a convolution read anything but its data."""
    return node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME") or any(
        node.attributes.get_ints("pads", ())
    )


def _refusal(node: ir.Node, facts: Facts) -> str | None:
    if padded(node):
        return f"{PADDED}, {name_of(node)!r}"
    if node.op_type not in BIAS:
        return f"{node.op_type} {name_of(node)!r} reads it, and has no bias to add its constant to"
    if bias_of(node) is not None and facts.stored(bias_of(node)) is None:
        return f"the bias of {node.op_type} {name_of(node)!r} is computed in the graph, so nothing can be added to it"
    return None

"""Normalizations, and operators that mix the positions of an axis.

Y[n, c, ...] = f(X[n, c, ...], scale[c], bias[c]); an axis with a mean or a sum over it is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Coupling,
    Kept,
    passes_channels,
    passes_constants,
    rewrites,
)

SOFTMAX_SINCE_ONE_AXIS = 13  # before this opset, Softmax and similar operators mixed all axes from `axis` on


@passes_channels("BatchNormalization")
def batch_normalization(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple every axis, and scale, bias, mean and variance with the channels; only in inference mode."""
    if _trains(node):
        return
    data, *parameters = node.inputs
    shape = facts.shape(data)
    if data is not None and shape is not None:
        yield from couple_axes(data, node.outputs[0], range(len(shape)), facts)
        yield from _with_channels(parameters, node.outputs[0], facts)


@passes_constants("BatchNormalization")
def batch_normalization_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Run the node on the known channels."""
    data = facts.known(node.inputs[0])
    shape = facts.shape(node.inputs[0])
    parameters = [facts.constant(value) for value in node.inputs[1:]]
    if _trains(node) or data is None or shape is None or any(array is None for array in parameters):
        return None
    channels = len(parameters[0])  # type: ignore[arg-type]
    full = np.broadcast_to(
        data.filled(0), [channels if axis == 1 else d for axis, d in enumerate(data.shape)]
    )
    result = facts.evaluate(node, [np.ascontiguousarray(full), *parameters])
    if result is None:
        return None
    return np.ma.array(result, mask=np.broadcast_to(np.ma.getmaskarray(data), result.shape))


@passes_channels("InstanceNormalization")
def instance_normalization(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple batch and channels, and scale and bias with the channels. Other axes are normalized over."""
    data, *parameters = node.inputs
    if data is not None:
        yield from couple_axes(data, node.outputs[0], (0, 1), facts)
        yield from _with_channels(parameters, node.outputs[0], facts)


@passes_channels("GroupNormalization")
def group_normalization(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple whole groups with their scale and bias (one per group before opset 21, one per channel since)."""
    data, *parameters = node.inputs
    if data is None:
        return
    out, groups = node.outputs[0], node.attributes.get_int("num_groups", 1)
    channels = facts.length(Axis(data, 1))
    yield from couple_axes(data, out, (0, 1), facts)
    if channels is None:
        return
    first = np.arange(groups) * (channels // groups)
    positions = np.arange(channels)
    yield Coupling(Axis(out, 1), Axis(out, 1), positions, np.repeat(first, channels // groups))
    for value in parameters:
        length = None if value is None else facts.length(Axis(value, 0))
        if value is not None and length is not None:
            places = positions if length == channels else first
            yield Coupling(Axis(value, 0), Axis(out, 1), np.arange(length), places)


@rewrites("GroupNormalization")
def normalization_groups(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the number of groups."""
    kept = kept_of(Axis(node.outputs[0], 1))
    if not kept.all():
        groups = node.attributes.get_int("num_groups", 1) * int(kept.sum()) // len(kept)
        node.attributes["num_groups"] = ir.AttrInt64("num_groups", groups)


@passes_channels("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple every axis that is not normalized over."""
    yield from unmixed(node, facts.opset >= SOFTMAX_SINCE_ONE_AXIS, facts)


def unmixed(node: ir.Node, one_axis: bool, facts: Facts) -> Iterator[Coupling]:
    """Couple every axis but the one that a Softmax mixes, or without `one_axis` all from that on."""
    data = node.inputs[0]
    shape = facts.shape(data)
    if data is None or shape is None:
        return
    axis = node.attributes.get_int("axis", -1 if one_axis else 1) % len(shape)
    mixed = (axis,) if one_axis else range(axis, len(shape))
    passed = [index for index in range(len(shape)) if index not in mixed]
    yield from couple_axes(data, node.outputs[0], passed, facts)


@passes_channels("LpNormalization", "TopK", "CumSum", "ArgMax", "ArgMin")
def one_axis_mixed(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple every axis but the one along which the operator sorts, sums or normalizes."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    axis: int | None = node.attributes.get_int("axis", 0 if node.op_type.startswith("Arg") else -1)
    if node.op_type == "CumSum":
        given = facts.constant(node.inputs[1])
        axis = None if given is None else int(given.reshape(-1)[0])
    if data is None or shape is None or axis is None:
        return
    passed = [other for other in range(len(shape)) if other != axis % len(shape)]
    dropped = node.op_type.startswith("Arg") and not node.attributes.get_int("keepdims", 1)
    for out in node.outputs:
        for other in passed:
            if facts.length(Axis(data, other)) is not None:
                made = other - 1 if dropped and other > axis % len(shape) else other
                yield Coupling(Axis(data, other), Axis(out, made))


def _trains(node: ir.Node) -> bool:
    return node.attributes.get_int("training_mode", 0) == 1 or len(node.outputs) > 1


def _with_channels(parameters: list[ir.Value | None], out: ir.Value, facts: Facts) -> Iterator[Coupling]:
    shape = facts.shape(out)
    for value in parameters:
        if value is not None and shape is not None and facts.shape(value) == (shape[1],):
            yield Coupling(Axis(value, 0), Axis(out, 1))

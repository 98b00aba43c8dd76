"""Normalisations, and operators that mix the positions of an axis with each other.

Y[n, c, ...] = f(X[n, c, ...], scale[c], bias[c]); an axis over which a mean or a sum is taken passes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.tables import Axis, Coupling, passes_channels, passes_constants

SOFTMAX_SINCE_ONE_AXIS = 13  # before, Softmax and its kin mixed all axes from `axis` on


@passes_channels("BatchNormalization")
def batch_normalization(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Every axis; scale, bias, mean and variance with the channels. At inference only."""
    if _trains(node):
        return
    data, *parameters = node.inputs
    shape = facts.shape(data)
    if data is not None and shape is not None:
        yield from couple_axes(data, node.outputs[0], range(len(shape)), facts)
        yield from _with_channels(parameters, node.outputs[0], facts)


@passes_constants("BatchNormalization")
def batch_normalization_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The node itself, run on one channel constant each."""
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
    """Batch and channels; scale and bias with the channels. The other axes are normalised over."""
    data, *parameters = node.inputs
    if data is not None:
        yield from couple_axes(data, node.outputs[0], (0, 1), facts)
        yield from _with_channels(parameters, node.outputs[0], facts)


@passes_channels("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Every axis but those that are normalised over."""
    data = node.inputs[0]
    shape = facts.shape(data)
    if data is None or shape is None:
        return
    one_axis = facts.opset >= SOFTMAX_SINCE_ONE_AXIS
    axis = node.attributes.get_int("axis", -1 if one_axis else 1) % len(shape)
    mixed = (axis,) if one_axis else range(axis, len(shape))
    passed = [index for index in range(len(shape)) if index not in mixed]
    yield from couple_axes(data, node.outputs[0], passed, facts)


@passes_channels("LayerNormalization", "RMSNormalization")
def layer_normalization(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """The axes before `axis`; the others are normalised over."""
    data = node.inputs[0]
    shape = facts.shape(data)
    if data is not None and shape is not None:
        axis = node.attributes.get_int("axis", -1) % len(shape)
        for out in node.outputs:
            yield from couple_axes(data, out, range(axis), facts)


def _trains(node: ir.Node) -> bool:
    return node.attributes.get_int("training_mode", 0) == 1 or len(node.outputs) > 1


def _with_channels(parameters: list[ir.Value | None], out: ir.Value, facts: Facts) -> Iterator[Coupling]:
    shape = facts.shape(out)
    for value in parameters:
        if value is not None and shape is not None and facts.shape(value) == (shape[1],):
            yield Coupling(Axis(value, 0), Axis(out, 1))

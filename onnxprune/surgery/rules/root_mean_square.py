"""RMSNormalization and its kin: Y = X / sqrt(mean(X^2) + epsilon) * scale, over the last axis.

A channel that is always 0 adds nothing to the sum of squares. Without k of C channels their mean is C / (C - k) times
as large, which a larger scale and epsilon make up for. So all that writes a residual stream loses a channel together.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.operands import is_read, operand
from onnxprune.model.slots import MICROSOFT
from onnxprune.surgery.constants import replace_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.rules.contraction import summed
from onnxprune.surgery.tables import Axis, Claim, Coupling, Kept, passes_channels, passes_constants, rewrites

SKIP = "SkipSimplifiedLayerNormalization"
# What is normalized is the sum of the first inputs; then comes the scale, and what is added as well.
SCALE = {"RMSNormalization": 1, "SimplifiedLayerNormalization": 1, SKIP: 2}
ADDED = {SKIP: 3}
SUM = 3  # the output that is the sum
EPSILON = {"RMSNormalization": 1e-5, "SimplifiedLayerNormalization": 1e-5, SKIP: 1e-12}


@passes_channels("RMSNormalization", "SimplifiedLayerNormalization")
@passes_channels(SKIP, domain=MICROSOFT)
def root_mean_square(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple every axis; the one that is normalized over can lose what is always 0, if scale and mean can change."""
    operands, outs = _operands(node), [node.outputs[0], *(out for out in node.outputs[SUM:] if out.name)]
    data, shape = operands[0], facts.shape(operands[0])
    if data is None or shape is None:
        return
    last = len(shape) - 1
    axis = node.attributes.get_int("axis", -1) % len(shape)
    for value in (*operands[1:], *outs):
        if value is not None and facts.shape(value) is not None and facts.rank(value) == len(shape):
            yield from couple_axes(data, value, range(axis), facts)
    scale, added = node.inputs[SCALE[node.op_type]], operand(node, ADDED.get(node.op_type))
    vectors = [value for value in (scale, added) if value is not None]
    stored = all(facts.stored(value) is not None for value in vectors)
    told = any(map(is_read, node.outputs[1:SUM]))
    channels = facts.length(Axis(data, last))
    if axis != last or not stored or told or channels is None:
        return
    if any(facts.shape(value) != (channels,) for value in vectors):
        return
    for value in operands:
        if value is not None:
            yield from couple_axes(value, outs[0], (last,), facts)
            yield summed(node, Axis(value, last))
    for out in outs[1:]:
        yield from couple_axes(out, outs[0], (last,), facts)
    for value in vectors:
        yield Coupling(Axis(value, 0), Axis(outs[0], last))
    if added is not None:
        yield summed(node, Axis(added, 0))


@passes_constants("RMSNormalization", "SimplifiedLayerNormalization")
@passes_constants(SKIP, domain=MICROSOFT)
def root_mean_square_constants(node: ir.Node, facts: Facts) -> list[np.ma.MaskedArray | None] | None:
    """What is always 0 stays 0."""
    shape = facts.shape(node.outputs[0])
    known = [
        facts.known(value) for value in (*_operands(node), operand(node, ADDED.get(node.op_type))) if value
    ]
    if shape is None or any(each is None for each in known):
        return None
    varies = [np.ma.getmaskarray(each) | (each.data != 0) for each in known if each is not None]
    mask = np.logical_or.reduce(np.broadcast_arrays(*varies))
    mask = mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape)
    dtype = next(each.dtype for each in known if each is not None)
    zeros = np.ma.array(np.zeros(mask.shape, dtype), mask=mask)
    return [zeros, None, None, zeros][: len(node.outputs)]


@rewrites("RMSNormalization", "SimplifiedLayerNormalization")
@rewrites(SKIP, domain=MICROSOFT)
def root_mean_square_scale(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Enlarge epsilon and scale."""
    out, place = node.outputs[0], SCALE[node.op_type]
    kept = kept_of(Axis(out, facts.rank(out) - 1))
    if kept.all():
        return
    more = len(kept) / int(kept.sum())
    epsilon = node.attributes.get_float("epsilon", EPSILON[node.op_type])
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon * more)
    scale = node.inputs[place]
    tensor = None if scale is None else scale.const_value
    assert tensor is not None
    larger = tensor.numpy().astype(np.float64) * np.sqrt(more)
    replace_operand(node, place, larger.astype(tensor.dtype.numpy()), tensor.dtype)


def _operands(node: ir.Node) -> list[ir.Value | None]:
    return list(node.inputs[: SCALE[node.op_type]])

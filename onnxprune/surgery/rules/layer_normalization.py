"""LayerNormalization: Y = (X - mean(X)) / sqrt(var(X) + epsilon) * scale + bias, over the last axis.

Channels that are always 0 count in mean and variance. Without k of them the node is put between two others that bring
back as many zeros and take their places away again, so that it computes what it did, to the bit:

    Y = Slice(LayerNormalization(Pad(X, k zeros), scale and bias with k zeros))

This takes little beside the products that become smaller (tests/benchmarks/norms.py). So all that writes a residual
stream loses a channel together, and where scale and bias are 0, what reads Y does too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.encoding import on_axis
from onnxprune.model.operands import is_read, operand
from onnxprune.model.slots import MICROSOFT
from onnxprune.surgery.constants import become, free_name, new_initializer, replace_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.rules.contraction import summed
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Coupling,
    Kept,
    Stays,
    passes_channels,
    passes_constants,
    rewrites,
)

SCALE, BIAS = 1, 2
PADS_AS_INPUT = 11  # the opset since which Pad's widths are an input
PADDING = "zeros that count in the mean of LayerNormalization"


@passes_channels("LayerNormalization")
@passes_channels("SkipLayerNormalization", domain=MICROSOFT)
def layer_normalization(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple every axis before `axis`; one that is normalized over can lose what is always 0."""
    data, out = node.inputs[0], node.outputs[0]
    shape = facts.shape(data)
    if data is None or shape is None:
        return
    axis = node.attributes.get_int("axis", -1) % len(shape)
    for value in (*node.inputs[1:2], *node.outputs):
        if value is not None and facts.shape(value) is not None and facts.rank(value) == len(shape):
            yield from couple_axes(data, value, range(axis), facts)
    last, vectors = len(shape) - 1, _vectors(node)
    channels = facts.length(Axis(data, last))
    if node.op_type != "LayerNormalization" or axis != last or channels is None or _told(node):
        return
    if facts.opset < PADS_AS_INPUT or any(facts.stored(value) is None for value in vectors):
        return
    if any(facts.shape(value) != (channels,) for value in vectors):
        return
    yield from couple_axes(data, out, (last,), facts)
    for value in vectors:
        yield Coupling(Axis(value, 0), Axis(out, last))
    yield summed(node, Axis(data, last))
    padding = _padding(node, facts)
    if padding:
        yield Stays(Axis(data, last), PADDING, np.arange(channels - padding, channels))


@passes_constants("LayerNormalization")
def layer_normalization_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The bias, where the scale is 0."""
    shape, scale = facts.shape(node.outputs[0]), facts.stored(node.inputs[SCALE])
    bias = operand(node, BIAS)
    added = None if bias is None else facts.stored(bias)
    if shape is None or scale is None or scale.ndim != 1 or (bias is not None and added is None):
        return None
    number = np.zeros_like(scale) if added is None else added
    if number.shape != scale.shape or node.attributes.get_int("axis", -1) % len(shape) != len(shape) - 1:
        return None
    return on_axis(np.ma.array(number, mask=scale != 0), len(shape) - 1, len(shape))


@rewrites("LayerNormalization")
def zeros_brought_back(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Count as many channels as before; where there are zeros already, more of them."""
    data, out, graph = node.inputs[0], node.outputs[0], node.graph
    rank = facts.rank(out)
    kept = kept_of(Axis(out, rank - 1))
    if data is None or graph is None or kept.all():
        return
    left, gone = int(kept.sum()), int((~kept).sum())
    for place, value in enumerate(node.inputs[SCALE:], SCALE):
        tensor = constant_tensor(value)
        if tensor is not None:
            zeros = np.zeros(gone, tensor.dtype.numpy())
            replace_operand(node, place, np.concatenate([tensor.numpy(), zeros]), tensor.dtype)
    pad = data.producer()
    if _padding(node, facts) and pad is not None:
        pads = facts.constant(pad.inputs[1])
        assert pads is not None
        replace_operand(
            pad, 1, pads + np.eye(1, 2 * rank, 2 * rank - 1, dtype=np.int64)[0] * gone, ir.DataType.INT64
        )
        return
    widths = new_initializer(
        graph, f"{out.name}_pads", np.array([0] * (2 * rank - 1) + [gone]), ir.DataType.INT64
    )
    padded = ir.Node("", "Pad", [data, widths], name=f"{node.name}_pad" if node.name else None)
    inputs = [padded.outputs[0], *node.inputs[SCALE:]]
    inner = ir.Node(
        "", node.op_type, inputs, node.attributes.values(), name=f"{node.name}_all" if node.name else None
    )
    for made, suffix in ((padded, "padded"), (inner, "all")):
        made.outputs[0].name = free_name(graph, f"{out.name}_{suffix}")
        made.outputs[0].type = out.type or data.type
        graph.insert_before(node, made)
    # The node itself takes the places away, so that its output stays the value that others read.
    bounds = [
        new_initializer(graph, f"{out.name}_{name}", np.array([number]), ir.DataType.INT64)
        for name, number in (("start", 0), ("end", left), ("axis", rank - 1))
    ]
    become(node, "Slice", (inner.outputs[0], *bounds))


def _vectors(node: ir.Node) -> list[ir.Value]:
    return [value for value in (node.inputs[SCALE], operand(node, BIAS)) if value is not None]


def _told(node: ir.Node) -> bool:
    """Whether anything reads the mean or the deviation."""
    return any(map(is_read, node.outputs[1:]))


def _padding(node: ir.Node, facts: Facts) -> int:
    """How many zeros a Pad that nothing else reads puts behind the channels."""
    data = node.inputs[0]
    pad = None if data is None else data.producer()
    if data is None or pad is None or pad.op_type != "Pad" or len(data.uses()) != 1 or data.is_graph_output():
        return 0
    if len(pad.inputs) != 2 or pad.attributes.get_string("mode", "constant") != "constant":
        return 0
    pads = facts.constant(pad.inputs[1])
    rank = facts.rank(data)
    if pads is None or len(pads) != 2 * rank or pads[:-1].any() or pads[-1] <= 0:
        return 0
    return int(pads[-1])

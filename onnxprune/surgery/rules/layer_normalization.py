"""LayerNormalization: Y = (X - mean(X)) / sqrt(var(X) + epsilon) * scale + bias, over the last axis; also of sums.

Channels that are always 0 count in mean and variance. Without k of them the node is put between two others that bring
back as many zeros and take their places away again, so that it computes what it did, to the bit:

    Y = Slice(LayerNormalization(Pad(X, k zeros), scale and bias with k zeros))

This takes little beside the products that become smaller (tests/benchmarks/norms.py). So all that writes a residual
stream loses a channel together, and where scale and bias are 0, what reads Y does too. onnxruntime's
SkipLayerNormalization, of X + skip + added, has a Pad for each of the two. EmbedLayerNormalization, of sums of table
entries, goes on giving these sums, and a LayerNormalization of its own comes behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.encoding import on_axis
from onnxprune.model.operands import is_read, operand
from onnxprune.model.slots import MICROSOFT
from onnxprune.surgery.constants import free_name, origin
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.rules.contraction import summed
from onnxprune.surgery.rules.padding import bring_back, more_zeros, pad_behind, padding_claims, take_away
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Coupling,
    Kept,
    passes_channels,
    passes_constants,
    rewrites,
)

EMBED, SKIP = "EmbedLayerNormalization", "SkipLayerNormalization"
TOTAL = 2  # the output of EmbedLayerNormalization that is the sum
EPSILON = 1e-12  # of the operators of onnxruntime


@dataclass(frozen=True)
class Layout:
    """Places of inputs: the `sources` of the sum that is normalized, all with its vectors; and of outputs.

    `total`: the sum. `told`: the mean and the deviation.
    """

    sources: tuple[int, ...]
    scale: int
    bias: int
    added: int | None = None
    total: int | None = None
    told: tuple[int, ...] = (1, 2)


LAYOUTS = {
    "LayerNormalization": Layout((0,), 1, 2),
    SKIP: Layout((0, 1), 2, 3, added=4, total=3),
    EMBED: Layout((2, 3, 4), 5, 6, total=TOTAL, told=()),
}


@passes_channels("LayerNormalization")
@passes_channels(SKIP, EMBED, domain=MICROSOFT)
def layer_normalization(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple every axis before `axis`; one that is normalized over can lose what is always 0."""
    sources, vectors, outs = _sources(node), _vectors(node), _outs(node)
    shape, out = facts.shape(node.outputs[0]), node.outputs[0]
    if shape is None or not sources or any(facts.shape(value) is None for value in sources):
        return
    axis, last = node.attributes.get_int("axis", -1) % len(shape), len(shape) - 1
    for value in (*sources, *node.outputs):
        if node.op_type != EMBED and facts.shape(value) is not None and facts.rank(value) == len(shape):
            yield from couple_axes(value, out, range(axis), facts)
    channels = facts.length(Axis(out, last))
    if axis != last or channels is None or any(map(is_read, _at(node.outputs, LAYOUTS[node.op_type].told))):
        return
    if any(facts.stored(origin(value)) is None or facts.shape(value) != (channels,) for value in vectors):
        return
    ends = [Axis(value, facts.rank(value) - 1) for value in sources]
    if any(facts.length(end) != channels for end in ends):
        return
    if node.op_type != EMBED and any(facts.rank(value) != len(shape) for value in sources):
        return
    for value in outs[1:]:
        yield from couple_axes(value, out, (last,), facts)
    for end in (*ends, *(Axis(value, 0) for value in vectors)):
        yield Coupling(end, Axis(out, last))
    for end in (*ends, *(Axis(value, 0) for value in _added(node))):
        yield summed(node, end)
    if node.op_type != EMBED:
        yield from padding_claims(sources, last, (node,), facts)


@passes_constants("LayerNormalization")
@passes_constants(SKIP, EMBED, domain=MICROSOFT)
def layer_normalization_constants(node: ir.Node, facts: Facts) -> list[np.ma.MaskedArray | None] | None:
    """The bias, where the scale is 0; of the sum, what is 0 in all that is summed."""
    layout, shape = LAYOUTS[node.op_type], facts.shape(node.outputs[0])
    scale, bias = facts.stored(origin(node.inputs[layout.scale])), operand(node, layout.bias)
    added = None if bias is None else facts.stored(origin(bias))
    if shape is None or scale is None or scale.ndim != 1 or (bias is not None and added is None):
        return None
    number = np.zeros_like(scale) if added is None else added
    last = len(shape) - 1
    if number.shape != scale.shape or node.attributes.get_int("axis", -1) % len(shape) != last:
        return None
    known: list[np.ma.MaskedArray | None] = [None] * len(node.outputs)
    known[0] = on_axis(np.ma.array(number, mask=scale != 0), last, len(shape))
    ends = [Axis(value, -1) for value in (*_sources(node), *_added(node))]
    if layout.total in range(len(known)) and all(facts.length(end) == len(scale) for end in ends):
        varies = [np.ma.getmaskarray(each) | (each.data != 0) for each in map(facts.along, ends)]
        zeros = np.ma.array(np.zeros_like(scale), mask=np.logical_or.reduce(varies))
        known[layout.total or 0] = on_axis(zeros, last, len(shape))
    return known


@rewrites("LayerNormalization")
@rewrites(SKIP, domain=MICROSOFT)
def zeros_brought_back(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Count as many channels as before; where there are zeros already, more of them."""
    layout, last = LAYOUTS[node.op_type], facts.rank(node.outputs[0]) - 1
    kept = kept_of(Axis(node.outputs[0], last))
    if kept.all():
        return
    gone = int((~kept).sum())
    more_zeros(node, range(layout.scale, len(node.inputs)), gone)
    if bring_back(_sources(node), last, gone, (node,), facts):
        outs = [place for place, value in enumerate(node.outputs) if value in _outs(node)]
        take_away(node, outs, last, int(kept.sum()), facts)


@rewrites(EMBED, domain=MICROSOFT)
def sum_normalized_apart(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Normalize the sum in a node behind this one, which counts as many channels as before."""
    layout, out, last = LAYOUTS[EMBED], node.outputs[0], facts.rank(node.outputs[0]) - 1
    kept, graph = kept_of(Axis(out, last)), node.graph
    if kept.all() or graph is None or not is_read(out):
        return
    gone = int((~kept).sum())
    inner = take_away(node, (0,), last, int(kept.sum()), facts)
    inner.resize_outputs(max(len(inner.outputs), TOTAL + 1))
    total = inner.outputs[TOTAL]
    if not total.name:
        total.name, total.type = free_name(graph, f"{out.name}_sum"), inner.outputs[0].type
    widths = np.zeros(2 * (last + 1), np.int64)
    widths[-1] = gone
    padded = pad_behind(total, widths, node, facts)
    vectors = _at(inner.inputs, (layout.scale, layout.bias))
    epsilon = ir.AttrFloat32("epsilon", inner.attributes.get_float("epsilon", EPSILON))
    norm = ir.Node("", "LayerNormalization", [padded, *vectors], [epsilon])
    norm.outputs[0].name = free_name(graph, f"{out.name}_normalized")
    norm.outputs[0].type = inner.outputs[0].type
    graph.insert_before(node, norm)
    more_zeros(norm, (1, 2), gone)
    node.replace_input_with(0, norm.outputs[0])


def _sources(node: ir.Node) -> list[ir.Value]:
    return _at(node.inputs, LAYOUTS[node.op_type].sources)


def _vectors(node: ir.Node) -> list[ir.Value]:
    layout = LAYOUTS[node.op_type]
    return [*_at(node.inputs, (layout.scale, layout.bias)), *_added(node)]


def _added(node: ir.Node) -> list[ir.Value]:
    layout = LAYOUTS[node.op_type]
    return [] if layout.added is None else _at(node.inputs, (layout.added,))


def _outs(node: ir.Node) -> list[ir.Value]:
    """The norm, and the sum where it is given."""
    layout = LAYOUTS[node.op_type]
    total = [] if layout.total is None else _at(node.outputs, (layout.total,))
    return [node.outputs[0], *(value for value in total if value.name)]


def _at(values: Sequence[ir.Value | None], places: Sequence[int]) -> list[ir.Value]:
    """Of values that may be left out, those that are there."""
    found = [values[place] for place in places if place < len(values)]
    return [value for value in found if value is not None]

"""Zeros that are brought back in front of a norm and taken away behind it, so that it counts what is gone.

Y = Slice(norm(Pad(X, k zeros)))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.surgery.constants import become, free_name, new_initializer, origin, replace_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.picking import slices_of
from onnxprune.surgery.tables import Axis, Stays

PADS_AS_INPUT = 11  # the opset since which Pad's widths are an input
BOUNDS_AS_INPUT = 10  # the same of Slice's starts, ends and axes
PADDING = "zeros that count in the mean of a norm"


def padding_claims(
    sources: Sequence[ir.Value], dim: int, nodes: Sequence[ir.Node], facts: Facts
) -> Iterator[Stays]:
    """The zeros that Pads put behind an axis for these nodes stay: they would be brought back again."""
    behind = _padding(sources, dim, nodes, facts)
    for source in sources:
        length = facts.length(Axis(source, dim))
        if behind and length is not None:
            yield Stays(Axis(source, dim), PADDING, np.arange(length - behind, length))


def bring_back(
    sources: Sequence[ir.Value], dim: int, gone: int, nodes: Sequence[ir.Node], facts: Facts
) -> bool:
    """Let `nodes` read so many zeros more; False where there were some already, so that a Slice is behind them too."""
    widened = bool(_padding(sources, dim, nodes, facts))
    for source in dict.fromkeys(sources):
        rank = facts.rank(source)
        more = np.eye(1, 2 * rank, rank + dim, dtype=np.int64)[0] * gone
        pad = source.producer()
        if widened and pad is not None:
            _set_widths(pad, _widths(pad, facts) + more, facts)
            continue
        padded = pad_behind(source, more, nodes[0], facts)
        for node in nodes:
            for place, value in enumerate(node.inputs):
                if value is source:
                    node.replace_input_with(place, padded)
    return not widened


def pad_behind(source: ir.Value, widths: np.ndarray, before: ir.Node, facts: Facts) -> ir.Value:
    """A Pad of a value in front of a node; `widths`: of each axis before and then behind, int64."""
    graph = before.graph
    assert graph is not None
    pad = ir.Node("", "Pad", [source], name=_named(before, "pad"))
    out = pad.outputs[0]
    out.name, out.type = free_name(graph, f"{source.name}_padded"), _type(source, facts)
    graph.insert_before(before, pad)
    _set_widths(pad, widths, facts)
    return out


def take_away(node: ir.Node, outs: Sequence[int], dim: int, left: int, facts: Facts) -> ir.Node:
    """Let outputs of a node, the first one among them, be the first `left` positions of what it computes.

    The node becomes a Slice, so that its output stays the value that others read. Returns the one that computes.
    """
    graph, values = node.graph, tuple(node.outputs)
    assert graph is not None and outs[0] == 0
    uses = [(use.node, use.idx, value) for value in values[1:] for use in value.uses()]
    for reader, place, _ in uses:
        reader.replace_input_with(place, None)
    node.resize_outputs(1)
    made = [_like(graph, value, facts) if place in outs else value for place, value in enumerate(values)]
    inner = ir.Node(
        node.domain,
        node.op_type,
        node.inputs,
        node.attributes.values(),
        outputs=made,
        name=_named(node, "all"),
    )
    graph.insert_before(node, inner)
    for place in outs[1:]:
        of_sum = ir.Node("", "Slice", [made[place]], outputs=[values[place]], name=_named(node, "sum"))
        graph.insert_before(node, of_sum)
        _set_bounds(of_sum, dim, left, facts)
    node.domain = ""
    become(node, "Slice", (made[0],))
    _set_bounds(node, dim, left, facts)
    for reader, place, value in uses:
        reader.replace_input_with(place, value)
    return inner


def more_zeros(node: ir.Node, places: Sequence[int], gone: int) -> None:
    """Put so many zeros behind the vectors that a node reads there."""
    for place in places:
        tensor = constant_tensor(origin(node.inputs[place]))
        if tensor is not None:
            zeros = np.zeros(gone, tensor.dtype.numpy())
            replace_operand(node, place, np.concatenate([tensor.numpy(), zeros]), tensor.dtype)


def _padding(sources: Sequence[ir.Value], dim: int, nodes: Sequence[ir.Node], facts: Facts) -> int:
    """How many zeros Pads that only these nodes read put behind the axis, and Slices of what they make take away.

    0 where a source has no such Pad, or something else reads what is made.
    """
    found = set()
    for source in sources:
        pad, rank = source.producer(), facts.rank(source)
        alone = not source.is_graph_output() and all(use.node in nodes for use in source.uses())
        if pad is None or pad.op_type != "Pad" or pad.domain not in ("", "ai.onnx") or not alone:
            return 0
        if len(pad.inputs) > 2 or pad.attributes.get_string("mode", "constant") != "constant":
            return 0
        if pad.attributes.get_float("value", 0.0):
            return 0
        widths = _widths(pad, facts)
        if len(widths) != 2 * rank or np.delete(widths, rank + dim).any() or widths[rank + dim] <= 0:
            return 0
        found.add(int(widths[rank + dim]))
    behind = found.pop() if len(found) == 1 else 0
    return behind if all(_cut(out, dim, behind, facts) for out in nodes[-1].outputs) else 0


def _cut(value: ir.Value, dim: int, behind: int, facts: Facts) -> bool:
    """Whether all that reads a value are Slices that take away the last positions of the axis."""
    length = facts.length(Axis(value, dim))
    if value.is_graph_output() or (length is None and value.uses()):
        return False
    for use in value.uses():
        slices = slices_of(use.node, facts) if use.node.op_type == "Slice" else None
        start, end, step = (slices or {}).get(dim, (0, length or 0, 1))
        if (start, step) != (0, 1) or end > (length or 0) - behind:
            return False
    return True


def _widths(pad: ir.Node, facts: Facts) -> np.ndarray:
    """Of a Pad of all axes; empty where they are computed."""
    given = facts.constant(pad.inputs[1]) if len(pad.inputs) > 1 else None
    return np.array(pad.attributes.get_ints("pads", ()), np.int64) if given is None else given


def _set_widths(pad: ir.Node, widths: np.ndarray, facts: Facts) -> None:
    if facts.opset < PADS_AS_INPUT:
        pad.attributes["pads"] = ir.AttrInt64s("pads", widths.tolist())
        return
    if len(pad.inputs) > 1:
        replace_operand(pad, 1, widths, ir.DataType.INT64)
        return
    values = new_initializer(pad.graph, f"{pad.outputs[0].name}_pads", widths, ir.DataType.INT64)
    pad.resize_inputs(2)
    pad.replace_input_with(1, values)


def _set_bounds(node: ir.Node, dim: int, left: int, facts: Facts) -> None:
    """Of a Slice of the first positions."""
    bounds = {"starts": 0, "ends": left, "axes": dim}
    if facts.opset < BOUNDS_AS_INPUT:
        node.attributes.update({name: ir.AttrInt64s(name, [number]) for name, number in bounds.items()})
        return
    node.resize_inputs(len(bounds) + 1)
    for place, (name, number) in enumerate(bounds.items(), 1):
        of_node = f"{node.outputs[0].name}_{name}"
        node.replace_input_with(
            place, new_initializer(node.graph, of_node, np.array([number]), ir.DataType.INT64)
        )


def _like(graph: ir.Graph, value: ir.Value, facts: Facts) -> ir.Value:
    """A new value of the same type, for what is computed with all positions."""
    return ir.Value(name=free_name(graph, f"{value.name}_all"), type=_type(value, facts))


def _type(value: ir.Value, facts: Facts) -> ir.TypeProtocol | None:
    dtype = facts.dtype(value)
    return value.type or (None if dtype is None else ir.TensorType(dtype))


def _named(node: ir.Node, suffix: str) -> str | None:
    """A name for a node beside another one, if that has any; onnxruntime refuses names that two nodes have."""
    if not node.name or node.graph is None:
        return None
    taken, name, number = {other.name for other in node.graph.all_nodes()}, f"{node.name}_{suffix}", 2
    while name in taken:
        name, number = f"{node.name}_{suffix}_{number}", number + 1
    return name

"""Detours through fewer axes: some axes are merged, the result is transposed, and they are split again.

    Y = Reshape(Transpose(Reshape(X, [-1, rows, columns]), [0, 2, 1]), [batch, heads, columns, rows])
      = Transpose(X, [0, 1, 3, 2])

torch.onnx (dynamo=True) writes the keys of attention like this. Heads that are merged with a batch of any size are no
axis of their own on the way; the detour goes when one of them does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.names import name_of
from onnxprune.model.operands import operand
from onnxprune.model.slots import domain_of
from onnxprune.surgery.constants import become, drop_unneeded
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.segments import match_segments
from onnxprune.surgery.tables import Axis, Claim, Coupling, Kept, Stays


@dataclass(frozen=True)
class Detour:
    """Three nodes that transpose `source`: axis i of what they give is its axis `order[i]`."""

    nodes: tuple[ir.Node, ...]
    source: ir.Value
    order: tuple[int, ...]

    def claims(self, node: ir.Node, claims: Iterable[Claim], facts: Facts) -> Iterator[Claim]:
        """Every axis of the source is passed on, by the three nodes as one."""
        if node is self.nodes[0]:
            for axis in self._static(facts):
                yield Coupling(Axis(self.source, axis), Axis(self.source, axis))
        elif node is self.nodes[-1]:
            for axis in self._static(facts):
                yield Coupling(Axis(self.source, axis), Axis(node.outputs[0], self.order.index(axis)))
        if node.op_type == "Reshape":
            yield from self._sizes(node, facts)

    def _sizes(self, node: ir.Node, facts: Facts) -> Iterator[Stays]:
        """Sizes of other values stay that a target copies, since the detour goes only with those of its source."""
        elements = facts.elements(operand(node, 1))
        for element in () if elements is None else elements.ravel():
            for axis in () if element.stored else element.axes:
                if axis.value is not self.source:
                    yield Stays(axis, f"Reshape node {name_of(node)!r} uses its size for another axis")

    def constants(self, node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
        """What is known of the source, transposed."""
        known = facts.known(self.source) if node is self.nodes[-1] else None
        return None if known is None else known.transpose(self.order)

    def rewrite(self, facts: Facts, kept_of: Kept) -> None:
        """Transpose the source itself; the nodes that only the detour needs go."""
        if all(kept_of(Axis(self.source, axis)).all() for axis in self._static(facts)):
            return
        last = self.nodes[-1]
        unused = [value for value in last.inputs if value is not None]
        become(last, "Transpose", (self.source,))
        last.attributes["perm"] = ir.AttrInt64s("perm", self.order)
        drop_unneeded(unused)

    def _static(self, facts: Facts) -> list[int]:
        return [axis for axis in range(len(self.order)) if facts.length(Axis(self.source, axis)) is not None]


def detours(facts: Facts) -> dict[ir.Node, Detour]:
    """The detour that each of its nodes is part of."""
    found: dict[ir.Node, Detour] = {}
    for node in facts.nodes():
        detour = _detour(node, facts)
        if detour is not None:
            found |= dict.fromkeys(detour.nodes, detour)
    return found


def _detour(last: ir.Node, facts: Facts) -> Detour | None:
    transpose = _maker(last, "Reshape", "Transpose")
    first = None if transpose is None else _maker(transpose, "Transpose", "Reshape")
    source = None if first is None else operand(first, 0)
    if transpose is None or first is None or source is None:
        return None
    shape, merged = facts.shape(source), facts.shape(first.outputs[0])
    made = facts.shape(last.outputs[0])
    segments = None if shape is None or merged is None else match_segments(shape, merged)
    if shape is None or merged is None or made is None or segments is None:
        return None
    # Axes are merged at all, and none is split: each axis on the way is some of the source's.
    if len(merged) >= len(shape) or any(len(segment.right) != 1 for segment in segments):
        return None
    of_merged = {segment.right[0]: segment.left for segment in segments}
    perm = tuple(transpose.attributes.get_ints("perm", ())) or tuple(reversed(range(len(merged))))
    order = tuple(axis for place in perm for axis in of_merged[place])
    if None in made or made != tuple(shape[axis] for axis in order):
        return None
    return Detour((first, transpose, last), source, order)


def _maker(node: ir.Node, op_type: str, made_by: str) -> ir.Node | None:
    """The node that makes the first input of a node of this type, for it alone, and is of the other type."""
    value = operand(node, 0)
    maker = None if value is None else value.producer()
    if node.op_type != op_type or domain_of(node) or value is None or maker is None:
        return None
    alone = len(value.uses()) == 1 and not value.is_graph_output() and maker.graph is node.graph
    return maker if alone and maker.op_type == made_by and not domain_of(maker) else None

"""If: its outputs are coupled with those of both bodies. Bodies are pruned like the main graph."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxprune.model.names import name_of
from onnxprune.model.shapes.inference import branches
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.tables import Axis, Claim, Stays, passes_channels


@passes_channels("If")
def conditional(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple the outputs of both bodies with those of the node if their shapes are equal; else they are frozen."""
    then, other = branches(node)
    for left, right, out in zip(then.outputs, other.outputs, node.outputs, strict=True):
        shapes = [facts.shape(value) for value in (left, right, out)]
        for value, shape in zip((left, right), shapes, strict=False):
            if shape is None or shapes[0] != shapes[1] or shape != shapes[2]:
                yield from _stay(value, facts, node)
            else:
                yield from couple_axes(value, out, range(len(shape)), facts)


def _stay(value: ir.Value, facts: Facts, node: ir.Node) -> Iterator[Stays]:
    for axis in range(len(facts.shape(value) or ())):
        yield Stays(Axis(value, axis), f"the bodies of If node {name_of(node)!r} have different shapes")

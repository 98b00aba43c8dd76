"""Nodes between two values that treat all positions of an axis alike, such as a LayerNormalization that is written out.

Element-wise operators and reductions of a whole axis do not know the order of its positions. So what is always 0 can
leave the axis and be brought back behind all others, whatever the nodes compute, however they are spelled:

    Y = Slice(f(Pad(X, k zeros), constants with the k positions behind))

Spans are found where this is needed: where what is summed is not 0 although X is, such as what is less the mean of X.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.slots import domain_of
from onnxprune.surgery.constants import origin, replace_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.contraction import summed
from onnxprune.surgery.rules.elementwise import ELEMENTWISE
from onnxprune.surgery.rules.padding import bring_back, padding_claims, take_away
from onnxprune.surgery.rules.reductions import REDUCTIONS, keeps_axes, reduced_axes
from onnxprune.surgery.tables import Axis, Claim, Contraction, Coupling, Kept, Stays

MOST_NODES = 32
# 0 where the first operand is, or where all are.
FIRST_ZERO = ("Abs", "Cast", "Div", "Identity", "Neg", "Pow", "Relu", "Sqrt")
ALL_ZERO = ("Add", "Sub", "Sum")
# With a constant along the axis, these may follow: runtimes take all nodes up to them for one operator.
FOLLOWERS = ("Mul", "Add")


@dataclass(frozen=True)
class Span:
    """`nodes`, in order, compute `out` from `source` and constants; `vectors`: the axes of these that go along."""

    nodes: tuple[ir.Node, ...]
    source: Axis
    out: Axis
    vectors: frozenset[Axis]

    def claims(self, node: ir.Node, claims: Iterable[Claim], facts: Facts) -> Iterator[Claim]:
        """Of what the rule of a node says (`claims`), that on other axes; and how the whole passes this one on."""
        rank = facts.rank(self.out.value)
        for claim in claims:
            along = (axis.dim == self.source.dim and facts.rank(axis.value) == rank for axis in _axes(claim))
            if not any(along):
                yield claim
        yield from (
            Coupling(axis, axis) for axis in (self.source, *self.vectors) if axis.value in node.inputs
        )
        if node is self.nodes[-1]:
            yield from (Coupling(axis, self.out) for axis in (self.source, *self.vectors))
            yield replace(
                summed(node, self.source), refusal=f"the norm before {self.out.value.name!r} sums over it"
            )
            yield from padding_claims([self.source.value], self.source.dim, self.nodes, facts)

    def rewrite(self, facts: Facts, kept_of: Kept) -> None:
        """Bring back what is gone from the axis in front of the nodes, and take it away behind them."""
        kept = kept_of(self.out)
        if kept.all():
            return
        for node in self.nodes:
            for place, value in enumerate(node.inputs):
                axis = next((axis for axis in self.vectors if axis.value is value), None)
                if axis is not None:
                    stored = origin(value)
                    tensor, whole = constant_tensor(stored), facts.stored(stored)
                    assert tensor is not None and whole is not None
                    parts = [np.compress(of, whole, axis=axis.dim) for of in (kept, ~kept)]
                    replace_operand(node, place, np.concatenate(parts, axis=axis.dim), tensor.dtype)
        dim, gone_count = self.source.dim, int((~kept).sum())
        if bring_back([self.source.value], dim, gone_count, self.nodes, facts):
            take_away(self.nodes[-1], (0,), dim, int(kept.sum()), facts)


def symmetric_spans(facts: Facts) -> dict[ir.Node, Span]:
    """The span of each node that is in one."""
    places = {node: place for place, node in enumerate(facts.nodes())}
    found: dict[ir.Node, Span] = {}
    for node in places:
        span = None if node in found else _span_around(node, places, facts)
        if span is not None and found.keys().isdisjoint(span.nodes):
            found |= dict.fromkeys(span.nodes, span)
    return found


def _axes(claim: Claim) -> tuple[Axis, ...]:
    if isinstance(claim, Coupling):
        return claim.left, claim.right
    if isinstance(claim, Contraction):
        return claim.data, claim.weight
    return (claim.axis,) if isinstance(claim, Stays) else tuple(claim.axes())


def _span_around(node: ir.Node, places: Mapping[ir.Node, int], facts: Facts) -> Span | None:
    """The span that sums what is not 0 although its source is; None where that is not so, or not all are alike."""
    data, reduced = node.inputs[0] if node.inputs else None, None
    if domain_of(node) == "" and node.op_type in REDUCTIONS:
        reduced = reduced_axes(node, facts)
    length = None if data is None or not reduced else facts.length(Axis(data, reduced[0]))
    if data is None or not reduced or len(reduced) > 1 or length is None or length < 2:
        return None
    alike = _Alike(facts, reduced[0], facts.rank(data), length)
    if not alike.treats(node):
        return None
    found = _back(data, alike, places)
    return None if found is None else _closed(found[0], {*found[1], node}, alike, places)


@dataclass(frozen=True)
class _Alike:
    """Whether nodes treat the positions of an axis alike: `dim` of values of `rank`, of this length."""

    facts: Facts
    dim: int
    rank: int
    length: int

    def treats(self, node: ir.Node) -> bool:
        """Whether the node is element-wise, or reduces this axis alone, of values and constants that are aligned."""
        if domain_of(node) or len(node.outputs) != 1 or not self.carries(node.outputs[0], 1):
            return False
        operands = list(node.inputs)
        if node.op_type in REDUCTIONS:
            if not keeps_axes(node) or reduced_axes(node, self.facts) != (self.dim,):
                return False
            operands = operands[:1]
        elif node.op_type not in ELEMENTWISE:
            return False
        return all(
            value is None
            or self.carries(value, 1)
            or (self.is_constant(value) and self.vector(value) is not False)
            for value in operands
        )

    def carries(self, value: ir.Value, *others: int) -> bool:
        """Whether a value has the axis, with its length or one of the `others`."""
        shape = self.facts.shape(value)
        return shape is not None and len(shape) == self.rank and shape[self.dim] in (self.length, *others)

    def is_constant(self, value: ir.Value) -> bool:
        """Whether a value is a constant, stored or computed."""
        return self.facts.constant(origin(value)) is not None

    def vector(self, value: ir.Value) -> Axis | bool | None:
        """The axis of a constant that is aligned with this one; None if it is the same along it, False if neither."""
        shape = self.facts.shape(value)
        if shape is None or len(shape) > self.rank:
            return False
        dim = self.dim - self.rank + len(shape)
        if dim < 0 or shape[dim] == 1:
            return None
        return (
            Axis(value, dim)
            if shape[dim] == self.length and self.facts.stored(origin(value)) is not None
            else False
        )


def _back(
    data: ir.Value, alike: _Alike, places: Mapping[ir.Node, int]
) -> tuple[ir.Value, set[ir.Node]] | None:
    """The nearest value from which `data` is made and where 0 does not make it 0, and the nodes between them."""

    def place(value: ir.Value) -> int:
        maker = value.producer()
        return -1 if maker is None else places.get(maker, -1)

    made_of, nodes = {data}, set[ir.Node]()
    while made_of and len(nodes) < MOST_NODES:
        last = max(made_of, key=place)
        if len(made_of) == 1 and alike.carries(last) and not _stays_zero(data, last, alike, {}):
            return last, nodes
        maker = last.producer()
        if maker is None or maker not in places or not alike.treats(maker):
            return None
        nodes.add(maker)
        operands = maker.inputs[:1] if maker.op_type in REDUCTIONS else maker.inputs
        made_of.remove(last)
        made_of |= {value for value in operands if value is not None and not alike.is_constant(value)}
    return None


def _stays_zero(value: ir.Value, source: ir.Value, alike: _Alike, seen: dict[ir.Value, bool]) -> bool:
    """Whether a value is 0 where its source is and constants along the axis, which may be set to 0, are."""
    if value is source or (alike.is_constant(value) and alike.vector(value)):
        return True
    node = value.producer()
    if node is None or alike.is_constant(value):
        return False
    if value not in seen:
        zeros = [
            operand is not None and _stays_zero(operand, source, alike, seen)
            for operand in (node.inputs[:1] if node.op_type in FIRST_ZERO else node.inputs)
        ]
        known = {"Mul": any(zeros)} | dict.fromkeys((*FIRST_ZERO, *ALL_ZERO), all(zeros))
        seen[value] = known.get(node.op_type, False)
    return seen[value]


def _closed(
    source: ir.Value, nodes: set[ir.Node], alike: _Alike, places: Mapping[ir.Node, int]
) -> Span | None:
    """The nodes and those after them up to where all that they make is in one value again, and a scale and a bias."""
    graph = next(iter(nodes)).graph
    while len(nodes) <= MOST_NODES:
        made = {node.outputs[0] for node in nodes}
        ends = [value for value in made if value.is_graph_output() or not _readers(value) <= nodes]
        readers = {reader for value in ends for reader in _readers(value)} - nodes
        if len(ends) == 1 and alike.carries(ends[0]):
            more = _followers(ends[0], alike)
            if not more:
                break
            nodes |= more
            continue
        first = min(readers, key=lambda node: places.get(node, -1), default=None)
        if first is None or first not in places or not alike.treats(first):
            return None
        outside = {
            value for value in first.inputs if value is not None and not alike.is_constant(value)
        } - made
        if not outside <= {source} or any(value.is_graph_output() for value in ends):
            return None
        nodes.add(first)
    else:
        return None
    if any(node.graph is not graph for node in nodes):
        return None
    ordered = tuple(sorted(nodes, key=places.__getitem__))
    vectors = {
        alike.vector(value)
        for node in nodes
        for value in (node.inputs[:1] if node.op_type in REDUCTIONS else node.inputs)
        if value is not None and alike.is_constant(value)
    }
    axes = frozenset(axis for axis in vectors if isinstance(axis, Axis))
    return Span(ordered, Axis(source, alike.dim), Axis(ends[0], alike.dim), axes)


def _readers(value: ir.Value) -> set[ir.Node]:
    return {use.node for use in value.uses()}


def _followers(value: ir.Value, alike: _Alike) -> set[ir.Node]:
    """A scale or a bias of the axis that alone reads a value, behind a Cast perhaps."""
    nodes: set[ir.Node] = set()
    while len(_readers(value)) == 1 and not value.is_graph_output():
        (reader,) = _readers(value)
        if not alike.treats(reader):
            break
        nodes.add(reader)
        constants = [each for each in reader.inputs if each is not None and alike.is_constant(each)]
        if reader.op_type in FOLLOWERS and any(alike.vector(each) for each in constants):
            return nodes
        if reader.op_type != "Cast":
            break
        value = reader.outputs[0]
    return set()

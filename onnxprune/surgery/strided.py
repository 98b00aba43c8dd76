"""Reads of a flattened value at all of its positions in order, as torch.onnx writes as_strided: they change nothing.

    Y = Gather(Reshape(X, [-1]), Range(0, N) * C + [0 ... C - 1])  =  X

torch calls as_strided behind a mean over images whose channels are the last axis in memory (ConvNeXt, Swin).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.operands import operand
from onnxprune.model.shapes.sizes import Dim
from onnxprune.model.slots import domain_of
from onnxprune.surgery.constants import become, drop_unneeded
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.tables import Claim, Coupling, Kept

SAME = ("Cast", "Identity")


@dataclass(frozen=True)
class StridedRead:
    """A Reshape to one axis and a Gather of all positions in order (`nodes`), which give `source` again."""

    nodes: tuple[ir.Node, ir.Node]
    source: ir.Value

    def claims(self, node: ir.Node, claims: Iterable[Claim], facts: Facts) -> Iterator[Claim]:
        """Every axis of the source is passed on."""
        made = self.source if node is self.nodes[0] else node.outputs[0]
        yield from couple_axes(self.source, made, range(facts.rank(self.source)), facts)

    def constants(self, node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
        """What is known of the source."""
        return facts.known(self.source) if node is self.nodes[1] else None

    def rewrite(self, facts: Facts, kept_of: Kept) -> None:
        """Read the source itself, without the positions; the nodes that only these need go."""
        gather = self.nodes[1]
        parts = [
            kept_of(claim.left) for claim in self.claims(gather, (), facts) if isinstance(claim, Coupling)
        ]
        if all(part.all() for part in parts):
            return
        unused = [value for value in gather.inputs if value is not None]
        become(gather, "Identity", (self.source,))
        drop_unneeded(unused)


def strided_reads(facts: Facts) -> dict[ir.Node, StridedRead]:
    """The read that each of its two nodes is part of."""
    found: dict[ir.Node, StridedRead] = {}
    for node in facts.nodes():
        read = _read(node, facts)
        if read is not None:
            found |= dict.fromkeys(read.nodes, read)
    return found


@dataclass(frozen=True)
class _Counting:
    """An array that counts up along its axes: its sizes, and by how much a step along each axis is more; 0 at first."""

    sizes: tuple[Dim, ...]
    steps: tuple[int, ...]


def _read(node: ir.Node, facts: Facts) -> StridedRead | None:
    flat = operand(node, 0)
    flattening = None if flat is None else flat.producer()
    if node.op_type != "Gather" or domain_of(node) or flat is None or flattening is None:
        return None
    source = operand(flattening, 0)
    shape, rank = facts.shape(source), facts.shape(flat)
    alone = len(flat.uses()) == 1 and not flat.is_graph_output() and flattening.graph is node.graph
    if flattening.op_type != "Reshape" or domain_of(flattening) or not alone or source is None:
        return None
    if shape is None or rank is None or len(rank) != 1 or facts.shape(node.outputs[0]) is None:
        return None
    if not all(shape) or not all(isinstance(dim, int) for dim in shape[1:]):
        return None
    found = _counting(operand(node, 1), facts)
    behind = [int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape))]  # type: ignore[arg-type]
    wanted = [0 if dim == 1 else step for dim, step in zip(shape, behind, strict=True)]
    if found is None or found.sizes != shape or list(found.steps) != wanted:
        return None
    return StridedRead((flattening, node), source)


def _counting(value: ir.Value | None, facts: Facts) -> _Counting | None:
    array, node = facts.constant(value), None if value is None else value.producer()
    if array is not None:
        return _of_array(array)
    if node is None or domain_of(node):
        return None
    if node.op_type == "Range":
        return _of_range(node, facts)
    first, second = (_counting(operand(node, place), facts) for place in (0, 1))
    if node.op_type in SAME:
        return first
    if node.op_type == "Unsqueeze" and first is not None:
        return _unsqueezed(first, node, facts)
    if node.op_type == "Add" and first is not None and second is not None:
        return _sum(first, second)
    if node.op_type == "Mul":
        factors = [facts.constant(operand(node, place)) for place in (1, 0)]
        for one, factor in zip((first, second), factors, strict=True):
            if one is not None and factor is not None and factor.size == 1 and factor.ndim <= len(one.sizes):
                return _Counting(one.sizes, tuple(step * int(factor.ravel()[0]) for step in one.steps))
    return None


def _of_array(array: np.ndarray) -> _Counting | None:
    if array.dtype.kind not in "iu" or not array.size or array.ravel()[0]:
        return None
    steps = [
        int(array.take(1, axis).ravel()[0]) if length > 1 else 0 for axis, length in enumerate(array.shape)
    ]
    counted = np.tensordot(np.array(steps, np.int64), np.indices(array.shape), 1)
    return _Counting(array.shape, tuple(steps)) if (array == counted).all() else None


def _of_range(node: ir.Node, facts: Facts) -> _Counting | None:
    start, step = (facts.constant(operand(node, place)) for place in (0, 2))
    limit = facts.elements(operand(node, 1))
    if start is None or step is None or limit is None or limit.size != 1 or start != 0 or step != 1:
        return None
    dim = limit.ravel()[0].dim
    return None if dim is None else _Counting((dim,), (1,))


def _unsqueezed(one: _Counting, node: ir.Node, facts: Facts) -> _Counting | None:
    axes = node.attributes.get_ints("axes", ()) or facts.constant(operand(node, 1))
    if axes is None:
        return None
    rank = len(one.sizes) + len(axes)
    new = {int(axis) % rank for axis in axes}
    rest = iter(zip(one.sizes, one.steps, strict=True))
    pairs = [(1, 0) if axis in new else next(rest) for axis in range(rank)]
    return _Counting(tuple(size for size, _ in pairs), tuple(step for _, step in pairs))


def _sum(one: _Counting, other: _Counting) -> _Counting | None:
    rank = max(len(one.sizes), len(other.sizes))
    sides = []
    for side in (one, other):
        more = rank - len(side.sizes)
        sides.append([*[(1, 0)] * more, *zip(side.sizes, side.steps, strict=True)])
    pairs = list(zip(*sides, strict=True))
    if any(left[0] != right[0] and 1 not in (left[0], right[0]) for left, right in pairs):
        return None
    sizes = tuple(right[0] if left[0] == 1 else left[0] for left, right in pairs)
    return _Counting(sizes, tuple(left[1] + right[1] for left, right in pairs))

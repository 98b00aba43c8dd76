"""Units and groups: which positions of which axes are removed together, and which are frozen.

A unit is an output channel or neuron. The filter that makes it, its bias, its channel of every value up to the next
weights, its columns after a Flatten and the columns of weights that read it are one group. Groups are the connected
components of all couplings of the rules; a group is frozen where a node that uses it has no rule for the axis, or where
it reaches an input or output of the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnx_ir as ir

import onnxprune.surgery.rules  # noqa: F401  (fills the tables)
from onnxprune.model.constants import constant_tensor
from onnxprune.model.names import name_of
from onnxprune.model.slots import slots
from onnxprune.surgery.detours import Detour, detours
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.strided import StridedRead, strided_reads
from onnxprune.surgery.symmetric import Span, symmetric_spans
from onnxprune.surgery.tables import (
    CHANNELS,
    CONSTANTS,
    Axis,
    Contraction,
    Coupling,
    OneOf,
    Stays,
    axes_of,
    key,
)

FREE = np.iinfo(np.int64).max  # no reason; of several reasons for a group, the first is kept
FIRST_OPSET = 7  # since then ONNX broadcasts like numpy, and onnxruntime guarantees its semantics


class Units:
    """The groups of a model: every position of every static axis has one, by number.

    A group's number is that of one of its positions. Where a reshape can pass only one of several axes (heads, or the
    width of each head), the outermost free one is used; with `innermost`, the innermost. `has_choices`: whether that
    makes a difference.
    """

    def __init__(self, facts: Facts, *, innermost: bool = False):
        self.facts = facts
        self.contractions: list[Contraction] = []
        self.innermost = innermost
        self.has_choices = False
        self.spans: dict[ir.Node, Span | StridedRead | Detour] = {
            **symmetric_spans(facts),
            **strided_reads(facts),
            **detours(facts),
        }
        self._start: dict[Axis, int] = {}
        self._length: dict[Axis, int] = {}
        total = 0
        for value, shape in facts.shapes().items():
            for index, length in enumerate(shape):
                if isinstance(length, int) and length > 0:
                    axis = Axis(value, index)
                    self._start[axis], self._length[axis] = total, length
                    total += length
        self._parent = np.arange(total)
        self._reason = np.full(total, FREE)  # of a group, at its number: an index of _reasons
        self._reasons: list[str] = []
        self._freeze_boundary()
        choices = [choice for node in facts.nodes() for choice in self._apply_rule(node)]
        for choice in choices:
            self._choose(choice)
        self._parent = self._find(np.arange(total))

    def axes(self) -> Iterable[Axis]:
        """Every static axis, in the order of its positions' numbers."""
        return self._start

    def starts(self) -> np.ndarray:
        """The number of the first position of each axis, in the order of `axes`."""
        return np.fromiter(self._start.values(), np.int64, len(self._start))

    def groups(self, axis: Axis) -> np.ndarray:
        """The group of each position of an axis."""
        return self._find(self._positions(axis))

    def all_groups(self) -> np.ndarray:
        """The group of each position of all axes, one axis after the other."""
        return self._parent

    def frozen(self) -> np.ndarray:
        """Whether a group must stay, bool by group number."""
        return self._reason != FREE

    def reason(self, group: int) -> str | None:
        """Why a group must stay, or None."""
        index = self._reason[group]
        return None if index == FREE else self._reasons[index]

    def __contains__(self, axis: object) -> bool:
        return axis in self._start

    def _positions(self, axis: Axis) -> np.ndarray:
        return np.arange(self._start[axis], self._start[axis] + self._length[axis])

    def _find(self, positions: np.ndarray) -> np.ndarray:
        roots = self._parent[positions]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                return roots
            self._parent[positions] = above
            roots = above

    def _join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Make one group of the groups of left[i] and right[i], for every i."""
        joined = np.concatenate([self._find(left), self._find(right)])
        while True:
            a, b = self._find(left), self._find(right)
            apart = a != b
            if not apart.any():
                break
            np.minimum.at(self._parent, np.maximum(a, b)[apart], np.minimum(a, b)[apart])
        np.minimum.at(self._reason, self._find(joined), self._reason[joined])

    def _freeze(self, axis: Axis, reason: str, index: np.ndarray | None = None) -> None:
        if axis not in self._start:
            return
        groups = self._find(self._positions(axis) if index is None else self._start[axis] + index)
        free = groups[self._reason[groups] == FREE]
        self._reason[free] = len(self._reasons)
        self._reasons.append(reason)

    def _freeze_boundary(self) -> None:
        for value, shape in self.facts.shapes().items():
            reason = self._boundary(value)
            if reason is not None:
                for index in range(len(shape)):
                    self._freeze(Axis(value, index), reason)

    def _boundary(self, value: ir.Value) -> str | None:
        if self.facts.opset < FIRST_OPSET:
            return f"the model has opset {self.facts.opset}; surgery supports opset {FIRST_OPSET} and later"
        if value in self.facts.model.graph.outputs:
            return f"it reaches the graph output {value.name!r}"
        if value.is_graph_input() and not value.is_initializer():
            return f"it reaches the graph input {value.name!r}"
        if self.facts.overridable(value):
            return f"{value.name!r} is also a graph input: a caller can override its values"
        for use in value.uses():
            if use.node.graph not in self.facts.graphs:
                return f"{use.node.op_type} node {name_of(use.node)!r} reads {value.name!r} inside a subgraph"
        return None

    def _apply_rule(self, node: ir.Node) -> Iterator[OneOf]:
        """Join what the node's rule couples and freeze all other axes; yields its choices, which are made later."""
        if node.outputs and constant_tensor(node.outputs[0]) is not None:
            return
        if self.facts.folded(node):
            self._freeze_all(node, "integers are computed from it")
            return
        if slots(node) and any(self._is_void(value) for value in (*node.inputs, *node.outputs)):
            self._freeze_all(node, f"{node.op_type} has an operand or a result without elements")
            return
        rule, span = CHANNELS.get(key(node)), self.spans.get(node)
        claims = rule(node, self.facts) if rule else ()
        claimed: set[Axis] = set()
        for claim in claims if span is None else span.claims(node, claims, self.facts):
            if isinstance(claim, OneOf):
                claimed |= claim.axes()
                yield claim
            elif isinstance(claim, Stays):
                self._freeze(claim.axis, claim.reason, claim.index)
                if claim.index is not None:
                    claimed.add(claim.axis)
            elif isinstance(claim, Contraction):
                claimed.update(self._contract(claim))
            elif self._couple(claim):
                claimed.update((claim.left, claim.right))
        self._freeze_all(node, _unclaimed(node, rule is not None), claimed)
        knows = CONSTANTS.get(key(node)) if span is None or isinstance(span, Span) else span.constants
        if knows is not None:
            known = knows(node, self.facts)
            outputs = known if isinstance(known, list) else [known]
            for value, of_value in zip(node.outputs, outputs, strict=False):
                self.facts.learn(value, of_value)

    def _is_void(self, value: ir.Value | None) -> bool:
        """Whether an array has an axis of no positions; vectors may, as the regions of Resize do."""
        shape = () if value is None else self.facts.shape(value) or ()
        return len(shape) > 1 and 0 in shape

    def _freeze_all(self, node: ir.Node, reason: str, but: Collection[Axis] = ()) -> None:
        """Freeze the axes of all inputs and outputs of a node."""
        for value in (*node.inputs, *node.outputs):
            for index in range(len(self.facts.shape(value) or ())):
                if value is not None and Axis(value, index) not in but:
                    self._freeze(Axis(value, index), reason)

    def _contract(self, claim: Contraction) -> tuple[Axis, ...]:
        """Couple the axes of a contraction; returns them, or none if they do not fit."""
        pairs = [Coupling(claim.data, claim.weight)]
        if claim.weight_out is not None and claim.out is not None:
            pairs.append(Coupling(claim.weight_out, claim.out))
        if not all(self._fits(pair) for pair in pairs):
            return ()
        for pair in pairs:
            self._couple(pair)
        self.contractions.append(claim)
        return tuple(axis for pair in pairs for axis in (pair.left, pair.right))

    def _fits(self, pair: Coupling) -> bool:
        return pair.left in self._start and self._length[pair.left] == self._length.get(pair.right)

    def _couple(self, coupling: Coupling) -> bool:
        left, right = coupling.left, coupling.right
        if left not in self._start or right not in self._start:
            return False
        if coupling.left_index is None or coupling.right_index is None:
            if not self._fits(coupling):
                return False
            self._join(self._positions(left), self._positions(right))
        else:
            self._join(self._start[left] + coupling.left_index, self._start[right] + coupling.right_index)
        return True

    def _choose(self, choice: OneOf) -> None:
        """Apply the first alternative with a free group, and freeze the axes that it does not couple."""
        ways = choice.ways[::-1] if self.innermost else choice.ways
        free = [way for way in ways if self._is_free(way)]
        self.has_choices |= len(free) > 1
        taken: set[Axis] = set()
        # Where none is free, the first one spreads the reason.
        for claim in (*free, *ways)[0]:
            if self._contract(claim) if isinstance(claim, Contraction) else self._couple(claim):
                taken |= axes_of([claim])
        for axis in choice.axes() - taken:
            self._freeze(
                axis, "only one of several axes of a reshape can be pruned, and another one was chosen"
            )

    def _is_free(self, way: Iterable[Coupling | Contraction]) -> bool:
        """Whether of any axes that a way connects, all have free positions."""
        parts: list[set[Axis]] = []
        for claim in way:
            axes = axes_of([claim])
            parts = [
                *(part for part in parts if part.isdisjoint(axes)),
                axes.union(*(part for part in parts if not part.isdisjoint(axes))),
            ]
        return any(
            all(axis in self._start and (self._reason[self.groups(axis)] == FREE).any() for axis in part)
            for part in parts
        )


def _unclaimed(node: ir.Node, has_rule: bool) -> str:
    if has_rule:
        return f"{node.op_type} node {name_of(node)!r} does not pass this axis on"
    domain = f"{node.domain}." if node.domain else ""
    return f"there is no rule for the operator {domain}{node.op_type}, of node {name_of(node)!r}"

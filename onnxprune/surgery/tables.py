"""The rule tables: what a rule can say of an operator, and where the rules are found, by (domain, op_type).

To teach surgery an operator, write one function in the family's file under `rules/`:

    @passes_channels("Concat")
    def concat(node, facts): yield Coupling(...)

An axis that a node reads or makes and of which its rule says nothing is frozen, and so is everything that an operator
without a rule touches: nothing is ever guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from onnxprune.surgery.facts import Facts


class Axis(NamedTuple):
    """One axis of a value, counted from the front."""

    value: ir.Value
    dim: int


@dataclass(frozen=True)
class Coupling:
    """Position `left_index[i]` of `left` stays or goes with `right_index[i]` of `right`; without them, one to one.

    An axis coupled with itself may shrink without the node minding.
    """

    left: Axis
    right: Axis
    left_index: np.ndarray | None = None
    right_index: np.ndarray | None = None


@dataclass(frozen=True)
class Stays:
    """Something asks for the length of the axis, or for what stands at these positions of it: they must stay."""

    axis: Axis
    reason: str
    index: np.ndarray | None = None


@dataclass(frozen=True)
class Contraction:
    """out[o] = sum over k of weight[o, k] * data[k] (+ bias[o]): position k may go where its term is none.

    `weight_out` and `out`, coupled one to one unless they are the same, tell which terms a living output needs; where
    they are None, all are needed. `refusal` says why a constant term cannot go into a bias; None where it can.
    """

    node: ir.Node
    data: Axis
    weight: Axis
    weight_out: Axis | None
    out: Axis | None
    scale: float = 1.0
    refusal: str | None = None


@dataclass(frozen=True)
class OneOf:
    """Any one of these ways to couple axes may hold, never two: positions must stay a full grid.

    They stand in the order of the axes, outermost first. The axes that the one chosen leaves out are frozen.
    """

    ways: tuple[tuple[Coupling | Contraction, ...], ...]

    def axes(self) -> set[Axis]:
        """All axes that any way couples."""
        return {axis for way in self.ways for axis in axes_of(way)}


def axes_of(claims: Iterable[Coupling | Contraction]) -> set[Axis]:
    """The axes of couplings and of what contractions share."""
    axes: set[Axis] = set()
    for claim in claims:
        pair = (claim.left, claim.right) if isinstance(claim, Coupling) else (claim.data, claim.weight)
        axes.update(pair)
    return axes


Claim = Coupling | OneOf | Stays | Contraction
Key = tuple[str, str]
ChannelRule = Callable[[ir.Node, "Facts"], Iterable[Claim]]
ConstantRule = Callable[[ir.Node, "Facts"], "np.ma.MaskedArray | Sequence[np.ma.MaskedArray] | None"]
Kept = Callable[
    [Axis], np.ndarray
]  # which positions of an axis stay, bool; of length 0 where it is not static
Rewrite = Callable[[ir.Node, "Facts", Kept], None]
BiasRule = Callable[[ir.Node, "Facts", int, np.ndarray, ir.DataType], None]

CHANNELS: dict[Key, ChannelRule] = {}
CONSTANTS: dict[Key, ConstantRule] = {}
REWRITES: dict[Key, Rewrite] = {}
BIASES: dict[Key, BiasRule] = {}

_Rule = TypeVar("_Rule", bound=Callable[..., object])


def passes_channels(*op_types: str, domain: str = "") -> Callable[[_Rule], _Rule]:
    """Register how positions on the axes of a node's inputs, weights and outputs belong together."""
    return _registrar(CHANNELS, op_types, domain)


def passes_constants(*op_types: str, domain: str = "") -> Callable[[_Rule], _Rule]:
    """Register what is known of a node's first output, or of all in a list, from its inputs (see Facts.known)."""
    return _registrar(CONSTANTS, op_types, domain)


def rewrites(*op_types: str, domain: str = "") -> Callable[[_Rule], _Rule]:
    """Register what of a node must follow when an axis shrinks, beside its constant inputs."""
    return _registrar(REWRITES, op_types, domain)


def takes_bias(*op_types: str, domain: str = "") -> Callable[[_Rule], _Rule]:
    """Register how a float64 vector is added along an axis of a node's output (counted from the back, as -1)."""
    return _registrar(BIASES, op_types, domain)


def key(node: ir.Node) -> Key:
    """The table key of a node."""
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def _registrar(table: dict, op_types: tuple[str, ...], domain: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        for op_type in op_types:
            assert (domain, op_type) not in table, op_type
            table[domain, op_type] = rule
        return rule

    return register

"""The rule tables, by (domain, op_type), and the claims that a rule can make about an operator.

To add an operator, write one function in the file of its family under `rules/`:

    @passes_channels("Concat")
    def concat(node, facts): yield Coupling(...)

Axes of a node's inputs and outputs that its rule does not mention are frozen, and so are all axes of an operator
without a rule: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.axes import Axis

if TYPE_CHECKING:
    from onnxprune.surgery.facts import Facts


@dataclass(frozen=True)
class Coupling:
    """Position `left_index[i]` of `left` is coupled with `right_index[i]` of `right`; without indices, one to one.

    Coupled positions are removed together. An axis coupled with itself may shrink on its own.
    """

    left: Axis
    right: Axis
    left_index: np.ndarray | None = None
    right_index: np.ndarray | None = None


@dataclass(frozen=True)
class Stays:
    """The axis, or these positions of it, cannot be removed, because something depends on its length or on them."""

    axis: Axis
    reason: str
    index: np.ndarray | None = None


@dataclass(frozen=True)
class Contraction:
    """out[o] = sum over k of weight[o, k] * data[k] (+ bias[o]): position k can be removed where its term is zero.

    `zero`: what stands for 0 in the data, such as a zero point; None where that is not known. `weight_zero`: the same
    in a weight that is computed; `Facts.zero` has those of stored weights.

    `weight_out` and `out`, coupled one to one unless they are the same, determine which terms a living output needs;
    where they are None, all are needed. `refusal`: why a constant term cannot be folded into a bias; None where it can.
    `measures`: no term is computed, only a range is taken, which a constant may leave.
    """

    node: ir.Node
    data: Axis
    weight: Axis
    weight_out: Axis | None
    out: Axis | None
    scale: float = 1.0
    refusal: str | None = None
    measures: bool = False
    zero: float | None = 0.0
    weight_zero: float | None = 0.0


@dataclass(frozen=True)
class OneOf:
    """Exactly one of these alternative couplings can hold, because the remaining positions must form a full grid.

    They are in the order of the axes, outermost first. Axes that the chosen one does not couple are frozen.
    """

    ways: tuple[tuple[Coupling | Contraction, ...], ...]

    def axes(self) -> set[Axis]:
        """All axes that any way couples."""
        return {axis for way in self.ways for axis in axes_of(way)}


def axes_of(claims: Iterable[Coupling | Contraction]) -> set[Axis]:
    """The axes of couplings, and the shared axes of contractions."""
    axes: set[Axis] = set()
    for claim in claims:
        pair = (claim.left, claim.right) if isinstance(claim, Coupling) else (claim.data, claim.weight)
        axes.update(pair)
    return axes


Claim = Coupling | OneOf | Stays | Contraction
Key = tuple[str, str]
ChannelRule = Callable[[ir.Node, "Facts"], Iterable[Claim]]
ConstantRule = Callable[[ir.Node, "Facts"], "np.ma.MaskedArray | Sequence[np.ma.MaskedArray | None] | None"]
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
    """Register how positions on the axes of a node's inputs, weights and outputs are coupled."""
    return _registrar(CHANNELS, op_types, domain)


def passes_constants(*op_types: str, domain: str = "") -> Callable[[_Rule], _Rule]:
    """Register what is known of a node's first output, or of all outputs as a list (see Facts.known)."""
    return _registrar(CONSTANTS, op_types, domain)


def rewrites(*op_types: str, domain: str = "") -> Callable[[_Rule], _Rule]:
    """Register how attributes and shapes of a node change when an axis shrinks; its constants are changed already."""
    return _registrar(REWRITES, op_types, domain)


def takes_bias(*op_types: str, domain: str = "") -> Callable[[_Rule], _Rule]:
    """Register how a float64 vector is added along an axis of a node's output (counted from the end, as -1)."""
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

"""Where operators take their weights: the table that says what in a model can be pruned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class WeightSlot:
    """Where an operator takes a weight: an input index, and the axis of outputs for a node and a rank."""

    input_index: int
    out_axis: Callable[[ir.Node, int], int]


def _gemm_out_axis(transposed_attribute: str, untransposed_axis: int) -> Callable[[ir.Node, int], int]:
    def out_axis(node: ir.Node, rank: int) -> int:
        transposed = node.attributes.get_int(transposed_attribute, 0)
        return 1 - untransposed_axis if transposed else untransposed_axis

    return out_axis


def _axis(number: int) -> Callable[[ir.Node, int], int]:
    return lambda node, rank: min(number, max(rank - 1, 0))


def _last(node: ir.Node, rank: int) -> int:
    return max(rank - 1, 0)


_CONV = (WeightSlot(1, _axis(0)),)
_GEMM = (WeightSlot(0, _gemm_out_axis("transA", 0)), WeightSlot(1, _gemm_out_axis("transB", 1)))
_MATMUL = (WeightSlot(0, lambda node, rank: max(rank - 2, 0)), WeightSlot(1, _last))
# (directions, gates x hidden, inputs or hidden)
_RECURRENT = (WeightSlot(1, _axis(1)), WeightSlot(2, _axis(1)))

# (domain, op_type) -> the inputs that may hold a weight. A new operator is one entry.
WEIGHT_SLOTS: dict[tuple[str, str], tuple[WeightSlot, ...]] = {
    ("", "Conv"): _CONV,
    (MICROSOFT, "FusedConv"): _CONV,
    ("", "DeformConv"): _CONV,
    ("", "ConvTranspose"): (WeightSlot(1, _axis(1)),),
    ("", "Gemm"): _GEMM,
    (MICROSOFT, "FusedGemm"): _GEMM,
    ("", "MatMul"): _MATMUL,
    (MICROSOFT, "FusedMatMul"): _MATMUL,
    ("", "Einsum"): (WeightSlot(0, _last), WeightSlot(1, _last), WeightSlot(2, _last)),
    ("", "LSTM"): _RECURRENT,
    ("", "GRU"): _RECURRENT,
    ("", "RNN"): _RECURRENT,
    (MICROSOFT, "Attention"): (WeightSlot(1, _last),),
}

# Operators that hold weights which this version leaves as they are: reported, never guessed.
UNHANDLED_WEIGHTED = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})


def domain_of(node: ir.Node) -> str:
    """The domain of a node's operator, "" for ONNX's own under either of its names."""
    return "" if node.domain == "ai.onnx" else node.domain


def slots(node: ir.Node) -> tuple[WeightSlot, ...]:
    """The inputs of a node that may hold a weight."""
    return WEIGHT_SLOTS.get((domain_of(node), node.op_type), ())

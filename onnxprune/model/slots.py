"""The table of operators with weights, and the inputs at which they take them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Integers:
    """The inputs with the encoding of a weight's integers, (q - zero point) * scale.

    Without `scale`, a Mul after the node has it. There is one value for the whole weight, or one for each position of
    `axes`, by default of the output axis.
    """

    scale: int | None
    zero_point: int
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class WeightSlot:
    """An input of an operator that takes a weight: its index, and the output axis of the weight for a node and a rank.

    `integers`: for an operator that computes with quantized weights.
    """

    input_index: int
    out_axis: Callable[[ir.Node, int], int]
    integers: Integers | None = None


def _axis(number: int) -> Callable[[ir.Node, int], int]:
    return lambda node, rank: min(number, max(rank - 1, 0))


def _rows(transposed: str = "") -> Callable[[ir.Node, int], int]:
    """The last axis but one, or the last where the attribute of this name is set."""
    return lambda node, rank: max(rank - 1 - (not node.attributes.get_int(transposed, 0)), 0)


def _columns(transposed: str = "") -> Callable[[ir.Node, int], int]:
    """The last axis, or the one before it where the attribute of this name is set."""
    return lambda node, rank: max(rank - 1 - bool(node.attributes.get_int(transposed, 0)), 0)


def _einsum(index: int) -> Callable[[ir.Node, int], int]:
    """The last axis that no other operand has, by the equation; if there is none, the last of all."""

    def out_axis(node: ir.Node, rank: int) -> int:
        terms = node.attributes.get_string("equation", "").replace(" ", "").partition("->")[0].split(",")
        # A damaged equation may have fewer terms than the node has inputs.
        term, others = "".join(terms[index : index + 1]), "".join(terms[:index] + terms[index + 1 :])
        own = [axis for axis, letter in enumerate(term) if letter not in others]
        return own[-1] if own and len(term) == rank else rank - 1

    return out_axis


_CONV = (WeightSlot(1, _axis(0)),)
_PRODUCT = (WeightSlot(0, _rows("transA")), WeightSlot(1, _columns("transB")))
# (directions, gates x hidden, inputs or hidden)
_RECURRENT = (WeightSlot(1, _axis(1)), WeightSlot(2, _axis(1)))
_QLINEAR_CONV = (WeightSlot(3, _axis(0), Integers(4, 5)),)

# (domain, op_type) -> the inputs that may hold a weight. A new operator is one entry.
WEIGHT_SLOTS: dict[tuple[str, str], tuple[WeightSlot, ...]] = {
    ("", "Conv"): _CONV,
    (MICROSOFT, "FusedConv"): _CONV,
    ("", "DeformConv"): _CONV,
    ("", "ConvTranspose"): (WeightSlot(1, _axis(1)),),
    (MICROSOFT, "ConvTransposeWithDynamicPads"): (WeightSlot(1, _axis(1)),),
    ("", "Gemm"): _PRODUCT,
    (MICROSOFT, "FusedGemm"): _PRODUCT,
    (MICROSOFT, "GemmFastGelu"): _PRODUCT,
    ("", "MatMul"): _PRODUCT,
    (MICROSOFT, "FusedMatMul"): _PRODUCT,
    (MICROSOFT, "FusedMatMulActivation"): _PRODUCT,
    (MICROSOFT, "TransposeMatMul"): _PRODUCT,
    ("", "Einsum"): tuple(WeightSlot(index, _einsum(index)) for index in range(3)),
    ("", "LSTM"): _RECURRENT,
    ("", "GRU"): _RECURRENT,
    ("", "RNN"): _RECURRENT,
    (MICROSOFT, "Attention"): (WeightSlot(1, _columns()),),
    (MICROSOFT, "PackedAttention"): (WeightSlot(1, _columns()),),
    (MICROSOFT, "LongformerAttention"): (WeightSlot(1, _columns()),),
    ("", "QLinearConv"): _QLINEAR_CONV,
    (MICROSOFT, "QLinearConv"): _QLINEAR_CONV,
    ("", "ConvInteger"): (WeightSlot(1, _axis(0), Integers(None, 3)),),
    ("", "QLinearMatMul"): (
        WeightSlot(0, _rows(), Integers(1, 2)),
        WeightSlot(3, _columns(), Integers(4, 5)),
    ),
    (MICROSOFT, "QGemm"): (
        WeightSlot(0, _rows("transA"), Integers(1, 2)),
        WeightSlot(3, _columns("transB"), Integers(4, 5)),
    ),
    ("", "MatMulInteger"): (
        WeightSlot(0, _rows(), Integers(None, 2)),
        WeightSlot(1, _columns(), Integers(None, 3)),
    ),
    (MICROSOFT, "MatMulIntegerToFloat"): (
        WeightSlot(0, _rows(), Integers(2, 4)),
        WeightSlot(1, _columns(), Integers(3, 5)),
    ),
    (MICROSOFT, "DynamicQuantizeMatMul"): (WeightSlot(1, _columns(), Integers(2, 3)),),
    # (directions, inputs or hidden, gates x hidden), other than LSTM
    (MICROSOFT, "DynamicQuantizeLSTM"): (
        WeightSlot(1, _axis(2), Integers(8, 9, axes=(0, 2))),
        WeightSlot(2, _axis(2), Integers(10, 11, axes=(0, 2))),
    ),
    (MICROSOFT, "QAttention"): (WeightSlot(1, _columns(), Integers(4, 7)),),
}

_EMBEDDINGS = tuple(WeightSlot(index, _axis(0)) for index in (2, 3, 4))

# Tables of vectors that are looked up: (entries, vector), each entry an output. They are pruned only where asked for.
EMBEDDING_SLOTS: dict[tuple[str, str], tuple[WeightSlot, ...]] = {
    ("", "Gather"): (WeightSlot(0, lambda node, rank: node.attributes.get_int("axis", 0) % max(rank, 1)),),
    (MICROSOFT, "EmbedLayerNormalization"): _EMBEDDINGS,
}

# (domain, op_type) -> why the weights of an operator are not pruned.
UNHANDLED: dict[tuple[str, str], str] = {
    (MICROSOFT, "MatMulNBits"): "weights that are packed into bytes are not supported",
    (MICROSOFT, "MatMulBnb4"): "weights that are packed into bytes are not supported",
    (MICROSOFT, "GatherBlockQuantized"): "weights that are packed into bytes are not supported",
    (MICROSOFT, "QEmbedLayerNormalization"): "the weights of this operator are not supported",
    (MICROSOFT, "QMoE"): "weights that are packed into bytes are not supported",
    (MICROSOFT, "MoE"): "weights of experts are not supported",
    (MICROSOFT, "DecoderAttention"): "the weights of this operator are not supported",
}


def domain_of(node: ir.Node) -> str:
    """The domain of a node's operator, "" for ONNX's own under either of its names."""
    return "" if node.domain == "ai.onnx" else node.domain


def slots(node: ir.Node) -> tuple[WeightSlot, ...]:
    """The inputs of a node that may hold a weight."""
    return WEIGHT_SLOTS.get((domain_of(node), node.op_type), ())


def embedding_slots(node: ir.Node) -> tuple[WeightSlot, ...]:
    """The inputs of a node that may hold an embedding."""
    return EMBEDDING_SLOTS.get((domain_of(node), node.op_type), ())

"""The operators that the outputs of a graph end in, which say how their numbers are to be read."""

from __future__ import annotations

import onnx_ir as ir

# What moves, copies or resamples numbers and keeps their meaning.
_PASSED = frozenset(
    {"Identity", "Dropout", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"}
    | {
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Gather",
        "Split",
        "Resize",
        "Upsample",
    }
)
PRODUCTS = frozenset({"Gemm", "MatMul", "Conv", "ConvTranspose"})
"""Operators whose results have any size and sign: logits, or numbers."""


def last_operators(model: ir.Model) -> dict[str, str]:
    """The type of the operator that makes each output, by its name; "" where the graph has none.

    Operators that only move, copy or resample numbers are passed over, and the Add of a bias behind a product.
    """
    return {output.name or "": last_operator(output) for output in model.graph.outputs}


def last_operator(value: ir.Value) -> str:
    """That of one value."""
    node = _producer(value)
    if node is None:
        return ""
    if node.op_type == "Add":
        makers = {maker.op_type for operand in node.inputs if (maker := _producer(operand)) is not None}
        return min(makers & PRODUCTS, default="Add")
    return node.op_type


def _producer(value: ir.Value | None) -> ir.Node | None:
    """The node that computes a value, before all that moves it."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _PASSED and node.domain in ("", "ai.onnx"):
        value = node.inputs[0] if node.inputs else None
        node = None if value is None else value.producer()
    return node

"""Inputs that a node may leave out, and outputs that nothing may read."""

from __future__ import annotations

import onnx_ir as ir


def operand(node: ir.Node, index: int | None) -> ir.Value | None:
    """`node.inputs[index]`; None where it is left out, or the operator has none (index None)."""
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def is_read(value: ir.Value) -> bool:
    """Whether a node reads a value, or it is an output of the graph."""
    return bool(value.uses()) or value.is_graph_output()

"""What messages and tables call a node."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def name_of(node: ir.Node | onnx.NodeProto) -> str:
    """The name of a node, or that of its first output where it has none."""
    outputs = node.output if isinstance(node, onnx.NodeProto) else [each.name for each in node.outputs]
    return node.name or next(filter(None, outputs), "")

"""Biases, tables of embeddings and other constants that are added to units, and what stands for 0 in them.

Where two computed values are multiplied, a unit has to be zero to be dead: its weights do not make it so alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.operands import operand
from onnxprune.model.reading import FLOAT_TYPES, QUANTIZED_TYPES
from onnxprune.model.weights import constants_by_name

# Operators that may lie between a stored constant and the node that computes with it.
PASSED_THROUGH = (
    "Cast",
    "DequantizeLinear",
    "Flatten",
    "Identity",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# The same, of constants that are added.
PASSED_ON = (*PASSED_THROUGH, "Expand", "Slice", "Tile")
# What lies beside it, or is chosen instead, is zero as well.
BESIDE = ("Concat", "Where")
TYPES = (*FLOAT_TYPES, *QUANTIZED_TYPES, ir.DataType.INT32)
# (operator, index of an input): with zeros there, a unit that is zero before the operator is zero after it (for
# LayerNormalization: with a scale and a bias of zero; for Mul, where it is the scale of one that is written out). And
# the index of the zero point of that input, where it has one.
ADDENDS: Mapping[tuple[str, int], int | None] = {
    ("Add", 0): None,
    ("Add", 1): None,
    ("Mul", 0): None,
    ("Mul", 1): None,
    ("Sub", 0): None,
    ("Sub", 1): None,
    ("BatchNormalization", 1): None,
    ("BatchNormalization", 2): None,
    ("Conv", 2): None,
    ("ConvTranspose", 2): None,
    ("FusedConv", 2): None,
    ("Gemm", 2): None,
    ("FusedGemm", 2): None,
    ("QAttention", 2): None,
    ("DynamicQuantizeLSTM", 3): None,
    ("LayerNormalization", 1): None,
    ("LayerNormalization", 2): None,
    ("SkipSimplifiedLayerNormalization", 3): None,
    **{("SkipLayerNormalization", place): None for place in (2, 3, 4)},
    **{("EmbedLayerNormalization", place): None for place in (2, 3, 4, 5, 6)},
    ("DynamicQuantizeMatMul", 4): None,
    ("MatMulIntegerToFloat", 6): None,
    ("QGemm", 6): None,
    ("QLinearConv", 8): None,
    ("QLinearAdd", 0): 2,
    ("QLinearAdd", 3): 5,
}


def addends(model: ir.Model) -> dict[ir.Value, int]:
    """What stands for 0 in each stored constant that is added, perhaps in another shape, wherever it is read."""
    found = {}
    for value in constants_by_name(model).values():
        tensor = constant_tensor(value)
        zeros = _zeros(value) if tensor is not None and tensor.dtype in TYPES else set()
        if len(zeros) == 1 and None not in zeros:
            found[value] = zeros.pop() or 0
    return found


def _zeros(value: ir.Value) -> set[int | None]:
    """What stands for 0 at each place where a value is read; None for a place that does not add it, or adds others."""
    zeros: set[int | None] = set()
    for use in value.uses():
        node, place = use.node, ADDENDS.get((use.node.op_type, use.idx), -1)
        if node.op_type == "DequantizeLinear" and use.idx == 0:
            behind = _zeros(node.outputs[0])
            zeros |= {_zero_point(node, 2)} if behind == {0} else {None}
        elif node.op_type == "Gather" and use.idx == 0:
            # What is looked up may be integers.
            made = [
                reader.node for reader in node.outputs[0].uses() if reader.node.op_type == "DequantizeLinear"
            ]
            zeros |= {_zero_point(reader, 2) for reader in made} or {0}
        elif node.op_type in BESIDE:
            zeros.add(0)
        elif node.op_type in PASSED_ON and use.idx == 0:
            zeros |= _zeros(node.outputs[0]) or {None}
        else:
            zeros.add(0 if place is None else _zero_point(node, place))
    return zeros


def _zero_point(node: ir.Node, place: int) -> int | None:
    """The one zero point; None where there are several, or it is computed."""
    if place < 0:
        return None
    value = operand(node, place)
    tensor = constant_tensor(value)
    if value is None or tensor is None:
        return 0 if value is None else None
    numbers = set(tensor.numpy().reshape(-1).tolist())
    return int(numbers.pop()) if len(numbers) == 1 else None

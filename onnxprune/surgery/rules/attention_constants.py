"""What fused attention makes of values that are zero: zeros. Operators behind it may ask for that (integers.py)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.model.encoding import on_axis
from onnxprune.model.operands import operand
from onnxprune.model.slots import MICROSOFT
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, passes_constants

BIAS, PAST_VALUE = 3, 7  # of MultiHeadAttention


@passes_constants("Attention", "QAttention", domain=MICROSOFT)
def packed_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Values are the last columns of the projection: zero where these and their biases are."""
    weight, bias, out = node.inputs[1], operand(node, 2), node.outputs[0]
    if weight is None or facts.shape(out) is None or facts.rank(weight) != 2 or len(node.outputs) != 1:
        return None
    width, parts = facts.length(Axis(out, 2)), [facts.present(weight)]
    if bias is not None:
        parts.append(facts.present(bias))
    if not width or any(part is None for part in parts):
        return None
    of_values = [part.reshape(-1, part.shape[-1])[:, -width:] for part in parts if part is not None]
    return _zeros(np.logical_or.reduce([(part != 0).any(axis=0) for part in of_values]), node, facts)


@passes_constants("MultiHeadAttention", domain=MICROSOFT)
def multi_head_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """As many values as outputs, one for each."""
    values, out = operand(node, 2), node.outputs[0]
    if values is None or facts.shape(values) is None or facts.shape(out) is None or facts.rank(values) != 3:
        return None
    if operand(node, BIAS) is not None or operand(node, PAST_VALUE) is not None:
        return None
    axes = Axis(values, 2), Axis(out, 2)
    if facts.length(axes[0]) is None or facts.length(axes[0]) != facts.length(axes[1]):
        return None
    return _zeros(facts.along(axes[0]).filled(1) != 0, node, facts)


def _zeros(varies: np.ndarray, node: ir.Node, facts: Facts) -> np.ma.MaskedArray:
    """Zeros along the last of three axes, masked where something else may be."""
    dtype = facts.dtype(node.outputs[0]) or ir.DataType.FLOAT
    return on_axis(np.ma.array(np.zeros(len(varies), dtype.numpy()), mask=varies), 2, 3)

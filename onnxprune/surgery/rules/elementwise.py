"""Element-wise operators with broadcasting: Y[..., c, ...] = f(A[..., c, ...], B[..., c, ...], ...).

A position is coupled with the same position of every operand, for example of a per-channel bias, or of both branches of
a residual connection.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.operands import operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_broadcast, freeze_unknown
from onnxprune.surgery.tables import Claim, passes_channels, passes_constants

# fmt: off
ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow",
    "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt",
    "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
)
MICROSOFT = ("BiasGelu", "FastGelu", "Gelu", "QuickGelu")
# fmt: on


@passes_channels("Dropout")
def dropout(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """The identity; one that also drops at inference would draw otherwise for fewer channels."""
    if not _drops(node, facts):
        yield from elementwise(node, facts)


@passes_channels(*ELEMENTWISE)
@passes_channels(*MICROSOFT, domain="com.microsoft")
def elementwise(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple each axis of every operand with the output axis that it is broadcast to."""
    for out in node.outputs:
        yield from freeze_unknown(node.inputs, out, facts)
        for value in node.inputs:
            yield from couple_broadcast(value, out, facts)


@passes_constants(*ELEMENTWISE)
@passes_constants(*MICROSOFT, domain="com.microsoft")
def elementwise_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Run the node on the known elements; a result is known if all its operands are, or one factor is zero."""
    operands = [facts.known(value) for value in node.inputs]
    if node.op_type == "Mul" and (operands[0] is None) != (operands[1] is None):
        known = operands[0] if operands[1] is None else operands[1]
        shape = facts.shape(node.outputs[0])
        if known is None or shape is None or known.ndim > len(shape):
            return None
        return np.ma.masked_where(known != 0, known).reshape((1,) * (len(shape) - known.ndim) + known.shape)
    arrays: list[np.ndarray | None] = []
    for value, known in zip(node.inputs, operands, strict=True):
        if value is not None and known is None:
            return None
        arrays.append(None if known is None else known.filled(0))
    result = facts.evaluate(node, arrays)
    if result is None:
        return None
    masks = [np.ma.getmaskarray(known) for known in operands if known is not None]
    mask = np.broadcast_to(np.logical_or.reduce(np.broadcast_arrays(*masks)), result.shape)
    return np.ma.array(result, mask=mask)


@passes_constants("Dropout")
def dropout_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The identity, unless the node also drops at inference."""
    return None if _drops(node, facts) else facts.known(node.inputs[0])


def _drops(node: ir.Node, facts: Facts) -> bool:
    """Whether a Dropout drops at inference (training_mode, the third input since Dropout-12)."""
    training = operand(node, 2)
    flag = facts.constant(training)
    return training is not None and (flag is None or bool(flag.any()))

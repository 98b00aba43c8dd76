"""Gemm: Y = alpha * A' B' + beta * C, and MatMul: Y = A B, with the weight on either side, or none (attention).

And their kin of integers, which multiply differences from zero points. DynamicQuantizeMatMul makes integers of its data
itself, by the range of all elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxprune.model.encoding import on_axis
from onnxprune.model.names import name_of
from onnxprune.model.operands import operand
from onnxprune.model.slots import MICROSOFT, slots
from onnxprune.surgery.constants import add_to_operand, insert_add
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_broadcast, freeze_unknown
from onnxprune.surgery.rules.contraction import contract_constants, measured
from onnxprune.surgery.rules.scales import couple_scales, zero_point
from onnxprune.surgery.tables import (
    BIASES,
    Axis,
    Claim,
    Contraction,
    Coupling,
    key,
    passes_channels,
    passes_constants,
    takes_bias,
)

ADDENDS = {"Gemm": 2, "FusedGemm": 2, "QGemm": 6, "MatMulIntegerToFloat": 6, "DynamicQuantizeMatMul": 4}
# They sum integers; those of MEASURING after taking the range of their data.
INTEGERS = ("DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearMatMul")
MEASURING = ("DynamicQuantizeMatMul",)


@passes_channels("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
@passes_channels(
    "DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "MatMulIntegerToFloat", "QGemm", domain=MICROSOFT
)
def matmul(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Contract the shared axis of A and B; couple their other axes, batch axes included, with the output.

    What is added, scales and zero points are coupled with it as well.
    """
    product, out = product_of(node, facts), node.outputs[0]
    if product is None:
        return
    if product.contraction is not None:
        yield product.contraction
    yield from product.passed
    rank = facts.rank(out)
    operands, inner = (product.left, product.right), (rank - 2, rank - 1)
    yield from freeze_unknown(operands, out, facts, skip=inner)
    for value in operands:
        yield from couple_broadcast(value, out, facts, skip=inner)
    yield from freeze_unknown([addend(node)], out, facts)
    yield from couple_broadcast(addend(node), out, facts)
    if node.op_type in MEASURING:
        yield from measured(node, product.left, facts)


@passes_constants("Gemm")
def gemm_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Units whose weights read only constants, with alpha, beta and C."""
    product = product_of(node, facts)
    total = None if product is None else _constant_units(product.contraction, facts)
    added = facts.known(addend(node))
    if total is None or (addend(node) is not None and added is None):
        return None
    if added is None:
        return total
    return total + added * np.asarray(node.attributes.get_float("beta", 1.0), total.dtype)


@passes_constants("MatMul")
def matmul_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Units whose weights read only constants; and zeros where a column of the second operand is zero."""
    product = product_of(node, facts)
    if product is None:
        return None
    columns, out = facts.known(node.inputs[1]), node.outputs[0]
    if facts.constant(node.inputs[1]) is not None or columns is None or columns.ndim != facts.rank(out):
        return _constant_units(product.contraction, facts)
    zero = (columns.filled(1) == 0).all(-2, keepdims=True)
    return np.ma.array(np.zeros(zero.shape, columns.dtype), mask=~zero)


@takes_bias("Gemm")
@takes_bias("FusedGemm", domain=MICROSOFT)
def gemm_bias(node: ir.Node, facts: Facts, axis: int, delta: np.ndarray, dtype: ir.DataType) -> None:
    """Replace C by beta * C + delta, and beta by 1."""
    beta = node.attributes.get_float("beta", 1.0)
    add_to_operand(node, 2, delta if axis == -1 else delta[:, np.newaxis], dtype, scale=beta)
    if beta != 1.0:
        node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)


@takes_bias("QGemm", domain=MICROSOFT)
def qgemm_bias(node: ir.Node, facts: Facts, axis: int, delta: np.ndarray, dtype: ir.DataType) -> None:
    """C + delta, in steps of A times those of B."""
    shaped = delta if axis == -1 else delta[:, np.newaxis]
    add_to_operand(node, ADDENDS[node.op_type], shaped, ir.DataType.INT32)


@takes_bias("MatMul")
@takes_bias("FusedMatMul", domain=MICROSOFT)
def matmul_bias(node: ir.Node, facts: Facts, axis: int, delta: np.ndarray, dtype: ir.DataType) -> None:
    """Add delta to the constant of the Add that follows, or insert an Add."""
    out = node.outputs[0]
    shaped = delta if axis == -1 else delta[:, np.newaxis]
    uses = tuple(out.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not out.is_graph_output():
        add, other = uses[0].node, 1 - uses[0].idx
        if facts.stored(add.inputs[other]) is not None:
            add_to_operand(add, other, shaped, dtype)
            return
    insert_add(out, shaped, dtype)


class Product(NamedTuple):
    """The contraction of a node's weight (or second operand), both operands, and their couplings with the output."""

    contraction: Contraction | None
    left: ir.Value
    right: ir.Value
    passed: tuple[Coupling, ...]


def product_of(node: ir.Node, facts: Facts) -> Product | None:
    """The product of a node; None if the shapes of its operands are not known, or have fewer than two axes.

    Or if scales or zero points are not of the columns of the second operand, or of the rows of the first.
    """
    places = 0, slots(node)[-1].input_index
    (a, b), out = (node.inputs[place] for place in places), node.outputs[0]
    a_shape, b_shape, out_shape = facts.shape(a), facts.shape(b), facts.shape(out)
    if a is None or b is None or a_shape is None or b_shape is None or out_shape is None:
        return None
    flips = [node.attributes.get_int(name, 0) for name in ("transA", "transB")]
    if min(len(a_shape), len(b_shape)) < 2 or any(
        node.attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB")
    ):
        return None
    left = Axis(a, len(a_shape) - 1 - flips[0]), Axis(a, len(a_shape) - 2 + flips[0])
    right = Axis(b, len(b_shape) - 2 + flips[1]), Axis(b, len(b_shape) - 1 - flips[1])
    outs = Axis(out, len(out_shape) - 2), Axis(out, len(out_shape) - 1)
    passed = [
        Coupling(axis, made)
        for (_, axis), made in zip((left, right), outs, strict=True)
        if facts.length(axis) is not None
    ]
    for place, made in zip(places, outs, strict=True):
        scales = couple_scales(node, place, made, facts)
        if scales is None:
            return None
        passed += scales
    if facts.length(left[0]) is None or facts.length(left[0]) != facts.length(right[0]):
        return Product(None, a, b, tuple(passed))
    weight_left = facts.constant(b) is None and facts.constant(a) is not None
    data, (weight, weight_out) = (right[0], left) if weight_left else (left[0], right)
    zeros = [zero_point(node, place, facts) for place in places]
    units = facts.length(weight_out) is not None
    contraction = Contraction(
        node,
        data,
        weight,
        weight_out if units else None,
        outs[0 if weight_left else 1] if units else None,
        # The sums of integers are scaled together with what is added.
        scale=1.0 if node.op_type in INTEGERS else node.attributes.get_float("alpha", 1.0),
        refusal=_refusal(node, weight.value, facts),
        zero=zeros[1 if weight_left else 0],
        weight_zero=zeros[0 if weight_left else 1],
    )
    return Product(contraction, a, b, tuple(passed))


def _constant_units(contraction: Contraction | None, facts: Facts) -> np.ma.MaskedArray | None:
    if contraction is None or contraction.weight_out is None or contraction.out is None:
        return None
    total = contract_constants(
        contraction.data,
        contraction.weight,
        contraction.weight_out,
        facts,
        zero_only=facts.rank(contraction.weight.value) > 2,
    )
    if total is None:
        return None
    total = total * np.asarray(contraction.scale, total.dtype)
    return on_axis(total, contraction.out.dim, facts.rank(contraction.out.value))


def addend(node: ir.Node) -> ir.Value | None:
    """What a node adds to its product, if anything."""
    return operand(node, ADDENDS.get(node.op_type))


def _refusal(node: ir.Node, weight: ir.Value, facts: Facts) -> str | None:
    if facts.rank(weight) > 2:
        return f"{node.op_type} {name_of(node)!r} reads it with a batched weight"
    if key(node) not in BIASES:
        return f"{node.op_type} {name_of(node)!r} reads it, and has no bias to add its constant to"
    if addend(node) is not None and facts.stored(addend(node)) is None:
        return (
            f"C of {node.op_type} {name_of(node)!r} is computed in the graph, so nothing can be added to it"
        )
    return None

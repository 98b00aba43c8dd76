"""Gemm: Y = alpha * A' B' + beta * C, and MatMul: Y = A B, with the weight on either side, or none (attention)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxprune.model.shapes import MICROSOFT
from onnxprune.surgery.constants import add_to_operand, insert_add
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_broadcast, freeze_unknown
from onnxprune.surgery.rules.contraction import contract_constants, on_axis
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Contraction,
    Coupling,
    passes_channels,
    passes_constants,
    takes_bias,
)


@passes_channels("Gemm")
@passes_channels("FusedGemm", domain=MICROSOFT)
def gemm(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Contract the shared axis of A and B; couple their other axes, and those of C, with the output."""
    product = _product(node, facts)
    if product is not None:
        yield from _claims(product, facts)
        yield from freeze_unknown([_addend(node)], node.outputs[0], facts)
        yield from couple_broadcast(_addend(node), node.outputs[0], facts)


@passes_channels("MatMul")
@passes_channels("FusedMatMul", domain=MICROSOFT)
def matmul(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Contract the shared axis of A and B; couple their other axes, batch axes included, with the output."""
    yield from multiplied(node, facts)


def multiplied(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """What MatMul says of its first two operands, for a node that multiplies these."""
    product = _product(node, facts)
    if product is None:
        return
    yield from _claims(product, facts)
    rank = facts.rank(node.outputs[0])
    yield from freeze_unknown(node.inputs[:2], node.outputs[0], facts, skip=(rank - 2, rank - 1))
    for value in node.inputs[:2]:
        yield from couple_broadcast(value, node.outputs[0], facts, skip=(rank - 2, rank - 1))


@passes_constants("Gemm")
def gemm_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Units whose weights read only constants, with alpha, beta and C."""
    product = _product(node, facts)
    total = None if product is None else _constant_units(product.contraction, facts)
    addend = facts.known(_addend(node))
    if total is None or (_addend(node) is not None and addend is None):
        return None
    if addend is None:
        return total
    return total + addend * np.asarray(node.attributes.get_float("beta", 1.0), total.dtype)


@passes_constants("MatMul")
def matmul_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Units whose weights read only constants; and zeros where a column of the second operand is zero."""
    product = _product(node, facts)
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


class _Product(NamedTuple):
    """The contraction of the node's weight (or second operand), and the couplings of both operands with the output."""

    contraction: Contraction | None
    passed: tuple[Coupling, ...]


def _product(node: ir.Node, facts: Facts) -> _Product | None:
    """The product of a node; None if the shapes of its operands are not known, or have fewer than two axes."""
    a, b, out = node.inputs[0], node.inputs[1], node.outputs[0]
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
    passed = tuple(
        Coupling(axis, made)
        for (_, axis), made in zip((left, right), outs, strict=True)
        if facts.length(axis) is not None
    )
    if facts.length(left[0]) is None or facts.length(left[0]) != facts.length(right[0]):
        return _Product(None, passed)
    weight_left = facts.constant(b) is None and facts.constant(a) is not None
    data, (weight, weight_out) = (right[0], left) if weight_left else (left[0], right)
    units = facts.length(weight_out) is not None
    contraction = Contraction(
        node,
        data,
        weight,
        weight_out if units else None,
        outs[0 if weight_left else 1] if units else None,
        scale=node.attributes.get_float("alpha", 1.0),
        refusal=_refusal(node, weight.value, facts),
    )
    return _Product(contraction, passed)


def _claims(product: _Product, facts: Facts) -> Iterator[Claim]:
    if product.contraction is not None:
        yield product.contraction
    yield from product.passed


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


def _addend(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if node.op_type.endswith("Gemm") and len(node.inputs) > 2 else None


def _refusal(node: ir.Node, weight: ir.Value, facts: Facts) -> str | None:
    if facts.rank(weight) > 2:
        return f"{node.op_type} {node.name!r} reads it with a batched weight"
    if _addend(node) is not None and facts.stored(_addend(node)) is None:
        return f"C of {node.op_type} {node.name!r} is computed in the graph, so nothing can be added to it"
    return None

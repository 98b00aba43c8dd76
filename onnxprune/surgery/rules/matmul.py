"""Gemm: Y = alpha * A' B' + beta * C, and MatMul: Y = A B, with the weight on either side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.constants import add_to_operand, insert_add
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_broadcast
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
def gemm(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """The shared axis of A and B; their other axes, and C's, with the output's."""
    product = _product(node, facts)
    if product is not None:
        yield from _claims(product, facts)
        yield from couple_broadcast(_addend(node), node.outputs[0], facts)


@passes_channels("MatMul")
def matmul(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """The shared axis of A and B; their other axes, batch axes included, with the output's."""
    product = _product(node, facts)
    if product is None:
        return
    yield from _claims(product, facts)
    rank = facts.rank(node.outputs[0])
    for value in node.inputs:
        yield from couple_broadcast(value, node.outputs[0], facts, skip=(rank - 2, rank - 1))


@passes_constants("Gemm")
def gemm_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """A unit whose weights read constants only, and alpha, beta and C."""
    product = _product(node, facts)
    total = None if product is None else _constant_units(product, facts)
    addend = facts.known(_addend(node))
    if total is None or (_addend(node) is not None and addend is None):
        return None
    total = total * np.asarray(node.attributes.get_float("alpha", 1.0), total.dtype)
    if addend is None:
        return total
    return total + addend * np.asarray(node.attributes.get_float("beta", 1.0), total.dtype)


@passes_constants("MatMul")
def matmul_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """A unit whose weights read constants only."""
    product = _product(node, facts)
    return None if product is None else _constant_units(product, facts)


@takes_bias("Gemm")
def gemm_bias(node: ir.Node, facts: Facts, axis: int, delta: np.ndarray, dtype: ir.DataType) -> None:
    """beta * C + delta, with beta = 1 from now on."""
    beta = node.attributes.get_float("beta", 1.0)
    add_to_operand(node, 2, delta if axis == -1 else delta[:, np.newaxis], dtype, scale=beta)
    if beta != 1.0:
        node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)


@takes_bias("MatMul")
def matmul_bias(node: ir.Node, facts: Facts, axis: int, delta: np.ndarray, dtype: ir.DataType) -> None:
    """Into the constant of the Add that follows, else into an Add of its own."""
    out = node.outputs[0]
    shaped = delta if axis == -1 else delta[:, np.newaxis]
    uses = tuple(out.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not out.is_graph_output():
        add, other = uses[0].node, 1 - uses[0].idx
        if facts.stored(add.inputs[other]) is not None:
            add_to_operand(add, other, shaped, dtype)
            return
    insert_add(out, shaped, dtype)


def _product(node: ir.Node, facts: Facts) -> tuple[Contraction, Coupling] | None:
    """How the node's weight is read, and the coupling of the data's own units with the output's."""
    a, b = node.inputs[0], node.inputs[1]
    a_shape, b_shape, out_shape = facts.shape(a), facts.shape(b), facts.shape(node.outputs[0])
    if a is None or b is None or a_shape is None or b_shape is None or out_shape is None:
        return None
    if min(len(a_shape), len(b_shape)) < 2:
        return None
    rows, columns = len(out_shape) - 2, len(out_shape) - 1
    flip_a, flip_b = node.attributes.get_int("transA", 0), node.attributes.get_int("transB", 0)
    a_out, a_in = (len(a_shape) - 2 + flip_a, len(a_shape) - 1 - flip_a)
    b_in, b_out = (len(b_shape) - 2 + flip_b, len(b_shape) - 1 - flip_b)
    if a_shape[a_in] != b_shape[b_in] or not isinstance(a_shape[a_in], int):
        return None
    left = (Axis(a, a_in), Axis(a, a_out), Axis(node.outputs[0], rows))
    right = (Axis(b, b_in), Axis(b, b_out), Axis(node.outputs[0], columns))
    weight_left = facts.constant(b) is None and facts.constant(a) is not None
    data, weight = (right, left) if weight_left else (left, right)
    if facts.length(weight[1]) is None:
        return None
    contraction = Contraction(
        node,
        data[0],
        weight[0],
        weight[1],
        weight[2],
        scale=node.attributes.get_float("alpha", 1.0),
        refusal=_refusal(node, weight[0].value, facts),
    )
    return contraction, Coupling(data[1], data[2])


def _claims(product: tuple[Contraction, Coupling], facts: Facts) -> Iterator[Claim]:
    contraction, coupling = product
    yield contraction
    if facts.length(coupling.left) is not None:
        yield coupling


def _constant_units(product: tuple[Contraction, Coupling], facts: Facts) -> np.ma.MaskedArray | None:
    contraction, _ = product
    total = contract_constants(
        contraction.data,
        contraction.weight,
        contraction.weight_out,
        facts,
        zero_only=facts.rank(contraction.weight.value) > 2,
    )
    if total is None:
        return None
    return on_axis(total, contraction.out.dim, facts.rank(contraction.out.value))


def _addend(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _refusal(node: ir.Node, weight: ir.Value, facts: Facts) -> str | None:
    if facts.rank(weight) > 2:
        return f"MatMul {node.name!r} reads it with a batched weight"
    if _addend(node) is not None and facts.stored(_addend(node)) is None:
        return f"C of Gemm {node.name!r} is computed in the graph, so nothing can be added to it"
    return None

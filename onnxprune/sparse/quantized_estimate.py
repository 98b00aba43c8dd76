"""Whether kernels for convolutions of 8-bit integers pay among dense ones.

Onnxruntime computes its own integer convolutions with channels last, and kernels here have channels first: every value
between the two is transposed. So convolutions that reach each other through operators of elements are looked at
together: their kernels must save more than the transposing costs. The unit is one dense multiply-add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping

import onnx_ir as ir

from onnxprune.model.shapes.inference import Shape
from onnxprune.sparse.between import has_kernel
from onnxprune.sparse.decoders import is_constant, part_array
from onnxprune.sparse.estimate import nodes_before
from onnxprune.sparse.quantized_functions import QUANTIZED_OPS

# Measured with AVX-512 VNNI: what a kernel takes of the dense time is FIXED + BY_SHARE times the share of fours, and a
# transposed element costs as much as this many multiply-adds.
FIXED, BY_SHARE = 0.16, 1.2
TRANSPOSED = 43.0
# What an output of onnxruntime's MaxPool of bytes costs with channels first, which only comes of a kernel before it
# (the one of ResNet-50 takes 3 ms, with channels last 0.04).
POOLED = 6000.0
# What onnxruntime computes with channels last as well, whichever way its integers are written.
PASSING = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Add", "Mul", "Relu", "Clip", "Sigmoid", "Concat", "MaxPool", "AveragePool"}
    | {"GlobalAveragePool", "Identity", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid"}
    | {"QLinearLeakyRelu", "QLinearAveragePool", "QLinearGlobalAveragePool"}
)  # fmt: skip


def paying(shares: Mapping[ir.Node, float], shapes: Mapping[ir.Value, Shape]) -> set[ir.Node]:
    """Those of the sparse convolutions that shall run by kernels; `shares` are their shares of fours.

    Where shapes are not known, all of a group pay.
    """
    graphs = {node.graph for node in shares if node.graph is not None}
    convolutions = [node for graph in graphs for node in graph if _is_conv(node)]
    edges = [(maker, node) for node in convolutions for maker in nodes_before(node, _is_conv, PASSING)]
    found: set[ir.Node] = set()
    for group in _groups(convolutions, edges):
        own = [node for node in group if node in shares]
        saved = [_saved(node, shares[node], shapes) for node in own]
        borders = {
            maker.outputs[0]
            for maker, node in edges
            if node in group and (maker in shares) != (node in shares)
        }
        moved = [_elements(value, shapes) for value in borders]
        if None in saved or None in moved or sum(filter(None, saved)) > TRANSPOSED * sum(filter(None, moved)):
            found.update(own)
    slow = {
        node
        for node in found
        if _is_pooled(node, shares[node], shapes, lambda pool: _pooled_by_kernel(pool, found))
    }
    return found - slow


def _pooled_by_kernel(pool: ir.Node, by_kernel: Collection[ir.Node]) -> bool:
    """Whether a MaxPool runs by a kernel where these convolutions do."""
    readers = [reader for reader, _ in pool.outputs[0].uses() if _is_conv(reader)]
    return has_kernel(pool) and all(reader in by_kernel for reader in readers)


def _is_pooled(
    node: ir.Node, share: float, shapes: Mapping[ir.Value, Shape], fast: Callable[[ir.Node], bool]
) -> bool:
    """Whether a MaxPool that is not `fast` reads the convolution, and takes longer by its kernel than that saves."""
    pools = [
        reader for reader, _ in node.outputs[0].uses() if reader.op_type == "MaxPool" and not fast(reader)
    ]
    saved, pooled = _saved(node, share, shapes), [_elements(pool.outputs[0], shapes) for pool in pools]
    return bool(pools) and saved is not None and saved < POOLED * sum(filter(None, pooled))


def _is_conv(node: ir.Node) -> bool:
    return "Conv" in node.op_type


def _saved(node: ir.Node, share: float, shapes: Mapping[ir.Value, Shape]) -> float | None:
    """Dense multiply-adds that a kernel saves."""
    place = QUANTIZED_OPS[node.op_type].inputs.index("shape")
    shape, y = node.inputs[place], _elements(node.outputs[0], shapes)
    if shape is None or y is None or not is_constant(shape):
        return None
    work = y * math.prod(int(size) for size in part_array(shape)[1:])
    return work * (1 - FIXED - BY_SHARE * share)


def _elements(value: ir.Value, shapes: Mapping[ir.Value, Shape]) -> int | None:
    sizes = [size for size in shapes.get(value) or (None,) if isinstance(size, int)]
    return math.prod(sizes) if len(sizes) == len(shapes.get(value) or (None,)) else None


def _groups(
    nodes: Iterable[ir.Node], edges: Iterable[tuple[ir.Node, ir.Node]]
) -> Iterable[Collection[ir.Node]]:
    """Nodes that edges connect, together."""
    group_of = {node: {node} for node in nodes}
    for maker, node in edges:
        if maker in group_of and group_of[maker] is not group_of[node]:
            group_of[maker] |= group_of[node]
            for each in group_of[node]:
                group_of[each] = group_of[maker]
    return {id(group): group for group in group_of.values()}.values()

"""Where a sparse node runs: by the library's kernel, or dense. Told in the file by the node's domain alone.

    onnxprune::SparseConv  <->  onnxprune.dense::SparseConv

Both have the same function, so stock onnxruntime makes the same of either; the library has kernels for the first
only. Weights are not touched on the way, in whatever form they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import onnx_ir as ir

from onnxprune.model.shapes.inference import Shape
from onnxprune.sparse.between import accompany
from onnxprune.sparse.blocks import share_of_fours
from onnxprune.sparse.decoders import decoder_of, is_constant, part_array
from onnxprune.sparse.encode import Encoded
from onnxprune.sparse.functions import DENSE_DOMAIN, DOMAIN, DOMAIN_VERSION, DOMAINS, SPARSE_OPS
from onnxprune.sparse.quantized_estimate import paying
from onnxprune.sparse.quantized_functions import PARTS, QUANTIZED_OPS

# Kernels read four neighboring inputs at once, whether one of them is not zero or all are. Above this share of fours,
# dense kernels are as fast (measured with AVX-512 VNNI: 1.5 to 2.4 times slower than kernels at 0.3).
MOST_FOURS = 0.45
# The same for a product of so many rows of x or more, of which the last applies. Most lanes of a vector then mean
# nothing: a product of 768 by 3072 takes at 0.1 and 0.2 as long as dense for 1 row and 1.5 times that, for 8 rows half
# and 0.8 times that.
MOST_FOURS_BY_ROWS = ((0, 0.1), (8, 0.2), (16, MOST_FOURS))


def kernel_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes that kernels can run, of floats and of integers, in graph order, subgraphs included."""
    return [node for node in _own(model) if node.op_type in SPARSE_OPS or node.op_type in QUANTIZED_OPS]


def sparse_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes of floats whose weight is stored sparse, wherever they run, in graph order, subgraphs included."""
    # Functions of ours that only decode have no kernels.
    return [node for node in _own(model) if node.op_type in SPARSE_OPS]


def decoders(node: ir.Node) -> list[ir.Node]:
    """The functions of ours that a sparse node's constants pass through, in the order they are computed."""
    found: dict[ir.Node, None] = {}
    for value in node.inputs:
        if (maker := decoder_of(value)) is not None:
            found |= dict.fromkeys([*decoders(maker), maker])
    return list(found)


def quantized_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes of 8-bit integers whose weight is stored sparse, in graph order, subgraphs included."""
    return [node for node in _own(model) if node.op_type in QUANTIZED_OPS]


def paying_quantized(model: ir.Model, shapes: Mapping[ir.Value, Shape]) -> set[ir.Node]:
    """The nodes of 8-bit integers of whose weight enough is zero for kernels to pay.

    `shapes` are those of the model's values, as far as they are known.
    """
    found: set[ir.Node] = set()
    convolutions: dict[ir.Node, float] = {}
    for node in quantized_nodes(model):
        op = QUANTIZED_OPS[node.op_type]
        parts = [node.inputs[op.inputs.index(part)] for part in PARTS]
        if not all(is_constant(part) for part in parts):
            found.add(node)
            continue
        share = share_of_fours(
            Encoded(*(part_array(part) for part in parts if part is not None)), op.input_axis
        )
        most = MOST_FOURS if op.one_zero_point else _most_fours(node, shapes)
        if share <= most and op.one_zero_point:
            convolutions[node] = share
        elif share <= most:
            found.add(node)
    return found | paying(convolutions, shapes)


def _most_fours(node: ir.Node, shapes: Mapping[ir.Value, Shape]) -> float:
    """The share of fours up to which a product runs by its kernel; rows that are not known are many."""
    x = shapes.get(node.inputs[0]) if node.inputs[0] is not None else None
    sizes = [] if x is None else [size for size in x[:-1] if isinstance(size, int)]
    if x is None or len(sizes) < len(x) - 1:
        return MOST_FOURS
    rows = math.prod(sizes)
    return next(most for least, most in reversed(MOST_FOURS_BY_ROWS) if rows >= least)


def place(model: ir.Model, by_kernel: Collection[ir.Node]) -> None:
    """Have the sparse nodes in `by_kernel` run by the library's kernels, and all others dense."""
    for node in kernel_nodes(model):
        node.domain = DOMAIN if node in by_kernel else DENSE_DOMAIN
    accompany(model)
    _give_functions(model)


def _give_functions(model: ir.Model) -> None:
    """Give every domain the functions that its nodes call."""
    own = {identifier[1:]: body for identifier, body in model.functions.items() if identifier[0] in DOMAINS}
    for domain in DOMAINS:
        for name in own:
            model.functions.pop((domain, *name), None)
    called = [node.op_identifier() for node in _own(model)]
    while called:
        identifier = called.pop()
        if identifier not in model.functions and identifier[1:] in own:
            moved = own[identifier[1:]].clone()
            moved.domain = identifier[0]
            model.functions[identifier] = moved
            called += [node.op_identifier() for node in moved if node.domain in DOMAINS]
    for domain in DOMAINS:
        if any(identifier[0] == domain for identifier in model.functions):
            model.opset_imports[domain] = DOMAIN_VERSION
        else:
            model.opset_imports.pop(domain, None)


def _own(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph.all_nodes() if node.domain in DOMAINS]

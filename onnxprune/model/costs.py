"""The multiply-adds of a model, counted from shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import onnx_ir as ir

from onnxprune.model.names import name_of
from onnxprune.model.operands import operand
from onnxprune.model.shapes.inference import MICROSOFT, infer_shapes, with_branches
from onnxprune.model.weights import Weight


class Loop(NamedTuple):
    """A loop over `length` positions: those from `start` on of an axis of a value, or of no axis of any."""

    length: int
    value: ir.Value | None = None
    dim: int = 0
    start: int = 0


class Product(NamedTuple):
    """One multiply-add for each run of all loops together; the factors are inputs of the node, by their index."""

    loops: tuple[Loop, ...]
    factors: tuple[int, ...]

    @property
    def runs(self) -> int:
        """The number of multiply-adds."""
        return math.prod(loop.length for loop in self.loops)


class Reads:
    """A node with the shapes of its inputs and outputs; None for one that is absent or not completely known."""

    def __init__(self, node: ir.Node, shapes: Mapping[ir.Value, tuple]):
        self.node = node
        self._shapes = shapes

    def shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The shape of a value, if all of it is known."""
        shape = None if value is None else self._shapes.get(value)
        return shape if shape is not None and all(isinstance(dim, int) for dim in shape) else None

    def loops(self, value: ir.Value | None, first: int = 0) -> tuple[Loop, ...] | None:
        """A loop over each axis of a value, from the first one that counts."""
        shape = self.shape(value)
        if shape is None:
            return None
        return tuple(Loop(length, value, dim) for dim, length in enumerate(shape) if dim >= first)


Count = Callable[[Reads], Sequence[Product]]


def products(model: ir.Model, input_shapes: Mapping[str, Sequence[int]]) -> dict[ir.Node, Sequence[Product]]:
    """What the nodes of a model multiply in one run, If bodies included; see `multiply_adds`."""
    shapes = infer_shapes(model, input_shapes)
    found = {
        node: PRODUCTS[key](Reads(node, shapes))
        for graph in with_branches(model.graph)
        for node in graph
        if (key := ("" if node.domain == "ai.onnx" else node.domain, node.op_type)) in PRODUCTS
    }
    return {node: counted for node, counted in found.items() if counted}


def multiply_adds(model: ir.Model, input_shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Multiply-adds of one run, by node (its name, or that of its first output), If bodies included.

    `input_shapes`: the shapes of the graph inputs by name; by default those that the model declares. Counted are Conv,
    ConvTranspose, Gemm, MatMul, Einsum, recurrent layers, attention, and their fused and integer forms. Nodes whose
    shapes are not known from the inputs are skipped.
    """
    costs: dict[str, int] = {}
    for node, counted in products(model, input_shapes).items():
        name = name_of(node)
        costs[name] = costs.get(name, 0) + sum(product.runs for product in counted)
    return costs


def weight_multiply_adds(
    weights: Sequence[Weight], found: Mapping[ir.Node, Sequence[Product]]
) -> dict[str, int]:
    """The multiply-adds of each weight, by name, summed over its nodes; `found` is from `products`.

    Several weights of one product share its count in proportion to their sizes.
    """
    costs = {weight.name: 0 for weight in weights}
    readers: dict[ir.Node, list[tuple[int, Weight]]] = {}
    for weight in weights:
        for use in weight.uses:
            readers.setdefault(use.node, []).append((use.index, weight))
    for node, some in readers.items():
        for product in found.get(node, ()):
            factors = [weight for index, weight in some if index in product.factors]
            size = sum(weight.size for weight in factors)
            for weight in factors:
                costs[weight.name] += product.runs * weight.size // max(size, 1)
    return costs


def _conv(reads: Reads, weight: int = 1) -> Sequence[Product]:
    """Each output element is a sum over a filter."""
    filters, out = reads.loops(operand(reads.node, weight), 1), reads.loops(reads.node.outputs[0])
    return () if filters is None or out is None else [Product((*out, *filters), (weight,))]


def _conv_transpose(reads: Reads) -> Sequence[Product]:
    """Each input element is multiplied with all filters of its channel."""
    data, filters = reads.loops(reads.node.inputs[0]), reads.loops(operand(reads.node, 1), 1)
    return () if data is None or filters is None else [Product((*data, *filters), (1,))]


def _product(reads: Reads, right: int = 1) -> Sequence[Product]:
    left, out = reads.loops(reads.node.inputs[0]), reads.loops(reads.node.outputs[0])
    if not left or out is None:
        return ()
    summed = left[-2 if reads.node.attributes.get_int("transA", 0) else -1]
    return [Product((*out, summed), (0, right))]


def _einsum(reads: Reads) -> Sequence[Product]:
    node = reads.node
    terms = node.attributes["equation"].as_string().replace(" ", "").split("->")[0].split(",")
    operands = [reads.loops(value) for value in node.inputs]
    if "." in "".join(terms) or any(loops is None for loops in operands):
        return ()
    by_letter: dict[str, Loop] = {}
    for term, loops in zip(terms, operands, strict=True):
        for letter, loop in zip(term, loops or (), strict=True):
            if letter not in by_letter or by_letter[letter].length < loop.length:
                by_letter[letter] = loop
    return [Product(tuple(by_letter.values()), tuple(range(len(operands))))]


def _recurrent(reads: Reads) -> Sequence[Product]:
    """Each step of each sequence is multiplied with W and R."""
    data, w, r = (reads.loops(operand(reads.node, index)) for index in range(3))
    if data is None or w is None or r is None:
        return ()
    return [Product((*data[:2], *weight), (index,)) for index, weight in ((1, w), (2, r))]


def _packed_attention(reads: Reads, past: int = 4) -> Sequence[Product]:
    """The projection, queries by keys, and probabilities by values."""
    node = reads.node
    data, weight, out = (reads.loops(value) for value in (*node.inputs[:2], node.outputs[0]))
    if data is None or weight is None or out is None or (len(data), len(weight), len(out)) != (3, 2, 3):
        return ()
    # Keys are as wide as queries, which come first.
    queries = weight[1]._replace(length=(weight[1].length - out[2].length) // 2)
    before = reads.shape(operand(node, past))
    keys = Loop(data[1].length + (before[3] if before is not None and len(before) == 5 else 0))
    return [
        Product((*data[:2], *weight), (1,)),
        Product((*data[:2], keys, queries), ()),
        Product((*data[:2], keys, out[2]), ()),
    ]


def _attention(reads: Reads, past: int) -> Sequence[Product]:
    """Queries by keys, and probabilities by values; of three axes, or of four with the heads in the second one."""
    node = reads.node
    query, out = reads.loops(node.inputs[0]), reads.loops(node.outputs[0])
    key = reads.shape(operand(node, 1))
    packed = operand(node, 1) is None
    if query is None or out is None or len(query) not in (3, 4, 5) or len(out) not in (3, 4):
        return ()
    if not packed and key is None:
        return ()
    length = query[2 if len(query) == 4 else 1]
    before = reads.shape(operand(node, past))
    keys = length.length if key is None else key[2 if len(key) == 4 else 1]
    if before is not None and len(before) == 4:
        keys += before[2]
    made = out[2:] if len(out) == 3 else (out[1], out[3])
    # Of queries, keys and values in one array, each has the width of the output.
    asked = made if packed or len(query) == 5 else query[2:] if len(query) == 3 else (query[1], query[3])
    return [Product((query[0], length, Loop(keys), *width), ()) for width in (asked, made)]


PRODUCTS: dict[tuple[str, str], Count] = {
    ("", "Conv"): _conv,
    (MICROSOFT, "FusedConv"): _conv,
    ("", "DeformConv"): _conv,
    ("", "ConvTranspose"): _conv_transpose,
    (MICROSOFT, "ConvTransposeWithDynamicPads"): _conv_transpose,
    ("", "Gemm"): _product,
    (MICROSOFT, "FusedGemm"): _product,
    (MICROSOFT, "GemmFastGelu"): _product,
    ("", "MatMul"): _product,
    (MICROSOFT, "FusedMatMul"): _product,
    (MICROSOFT, "FusedMatMulActivation"): _product,
    (MICROSOFT, "TransposeMatMul"): _product,
    ("", "Einsum"): _einsum,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    (MICROSOFT, "Attention"): _packed_attention,
    (MICROSOFT, "MultiHeadAttention"): partial(_attention, past=6),
    (MICROSOFT, "GroupQueryAttention"): partial(_attention, past=3),
    ("", "Attention"): partial(_attention, past=4),
    ("", "QLinearConv"): partial(_conv, weight=3),
    (MICROSOFT, "QLinearConv"): partial(_conv, weight=3),
    ("", "ConvInteger"): _conv,
    ("", "QLinearMatMul"): partial(_product, right=3),
    (MICROSOFT, "QGemm"): partial(_product, right=3),
    ("", "MatMulInteger"): _product,
    (MICROSOFT, "MatMulIntegerToFloat"): _product,
    (MICROSOFT, "DynamicQuantizeMatMul"): _product,
    (MICROSOFT, "DynamicQuantizeLSTM"): _recurrent,
    (MICROSOFT, "QAttention"): partial(_packed_attention, past=8),
}

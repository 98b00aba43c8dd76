"""The multiply-adds of a model, counted from shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from onnxprune.model.names import name_of
from onnxprune.model.shapes.inference import MICROSOFT, infer_shapes, with_branches
from onnxprune.model.weights import Weight

Shapes = Sequence[tuple[int, ...] | None]
"""Shapes of a node's inputs, or of its outputs; None for one that is absent or not completely known."""
Count = Callable[[ir.Node, Shapes, Shapes], int | None]


def multiply_adds(model: ir.Model, input_shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Multiply-adds of one run, by node (its name, or that of its first output), If bodies included.

    `input_shapes`: the shapes of the graph inputs by name; by default those that the model declares. Counted are Conv,
    ConvTranspose, Gemm, MatMul, Einsum, recurrent layers, attention, and their fused and integer forms. Nodes whose
    shapes are not known from the inputs are skipped.
    """
    shapes = infer_shapes(model, input_shapes)
    costs = {}
    for graph in with_branches(model.graph):
        for node in graph:
            count = COUNTS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
            if count is None:
                continue
            inputs = [_static(value, shapes) for value in node.inputs]
            outputs = [_static(value, shapes) for value in node.outputs]
            cost = count(node, inputs, outputs)
            if cost is not None and node.outputs:
                costs[name_of(node)] = cost
    return costs


def weight_multiply_adds(weights: Sequence[Weight], costs: Mapping[str, int]) -> dict[str, int]:
    """The multiply-adds of each weight, by name, summed over its nodes; `costs` is from `multiply_adds`.

    Several weights of one node, as in an LSTM, share its count in proportion to their sizes.
    """
    sizes: dict[ir.Node, int] = {}
    for weight in weights:
        for node in {use.node for use in weight.uses}:
            sizes[node] = sizes.get(node, 0) + weight.size
    return {
        weight.name: sum(
            costs.get(name_of(node), 0) * weight.size // sizes[node]
            for node in {use.node for use in weight.uses}
        )
        for weight in weights
    }


def _conv(node: ir.Node, inputs: Shapes, outputs: Shapes) -> int | None:
    """Each output element is a sum over a filter."""
    weight, out = inputs[1], outputs[0]
    return None if weight is None or out is None else math.prod(out) * math.prod(weight[1:])


def _conv_transpose(node: ir.Node, inputs: Shapes, outputs: Shapes) -> int | None:
    """Each input element is multiplied with all filters of its channel."""
    data, weight = inputs[0], inputs[1]
    return None if weight is None or data is None else math.prod(data) * math.prod(weight[1:])


def _product(node: ir.Node, inputs: Shapes, outputs: Shapes) -> int | None:
    left, out = inputs[0], outputs[0]
    if left is None or out is None:
        return None
    return math.prod(out) * left[-2 if node.attributes.get_int("transA", 0) else -1]


def _einsum(node: ir.Node, inputs: Shapes, outputs: Shapes) -> int | None:
    terms = node.attributes["equation"].as_string().replace(" ", "").split("->")[0].split(",")
    if "." in "".join(terms) or any(shape is None for shape in inputs):
        return None
    sizes = {
        letter: size
        for term, shape in zip(terms, inputs, strict=True)
        for letter, size in zip(term, shape or (), strict=True)
    }
    return math.prod(sizes.values())


def _recurrent(node: ir.Node, inputs: Shapes, outputs: Shapes) -> int | None:
    """Each step of each sequence is multiplied with W and R."""
    data, w, r = inputs[:3]
    if data is None or w is None or r is None:
        return None
    return data[0] * data[1] * (math.prod(w) + math.prod(r))


def _packed_attention(node: ir.Node, inputs: Shapes, outputs: Shapes) -> int | None:
    data, weight, out = inputs[0], inputs[1], outputs[0]
    if data is None or weight is None or out is None:
        return None
    batch, length, _ = data
    return batch * length * (math.prod(weight) + length * (weight[1] - out[2]) // 2 + length * out[2])


def _attention(node: ir.Node, inputs: Shapes, outputs: Shapes) -> int | None:
    """Queries by keys, and probabilities by values."""
    query, key, out = inputs[0], inputs[1], outputs[0]
    if query is None or key is None or out is None or len(query) != 3 or len(key) != 3:
        return None
    return query[0] * query[1] * key[1] * (query[2] + out[2])


def _reading(*indices: int, count: Count) -> Count:
    """The same count, for a node with data and weight at other inputs."""
    return lambda node, inputs, outputs: count(node, [inputs[index] for index in indices], outputs)


COUNTS: dict[tuple[str, str], Count] = {
    ("", "Conv"): _conv,
    (MICROSOFT, "FusedConv"): _conv,
    ("", "ConvTranspose"): _conv_transpose,
    ("", "Gemm"): _product,
    (MICROSOFT, "FusedGemm"): _product,
    ("", "MatMul"): _product,
    (MICROSOFT, "FusedMatMul"): _product,
    ("", "Einsum"): _einsum,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    (MICROSOFT, "Attention"): _packed_attention,
    (MICROSOFT, "MultiHeadAttention"): _attention,
    ("", "Attention"): _attention,
    ("", "QLinearConv"): _reading(0, 3, count=_conv),
    (MICROSOFT, "QLinearConv"): _reading(0, 3, count=_conv),
    ("", "ConvInteger"): _conv,
    ("", "QLinearMatMul"): _product,
    (MICROSOFT, "QGemm"): _product,
    ("", "MatMulInteger"): _product,
    (MICROSOFT, "MatMulIntegerToFloat"): _product,
    (MICROSOFT, "DynamicQuantizeMatMul"): _product,
    (MICROSOFT, "DynamicQuantizeLSTM"): _recurrent,
    (MICROSOFT, "QAttention"): _packed_attention,
}


def _static(value: ir.Value | None, shapes: Mapping[ir.Value, tuple]) -> tuple[int, ...] | None:
    shape = None if value is None else shapes.get(value)
    return shape if shape is not None and all(isinstance(dim, int) for dim in shape) else None

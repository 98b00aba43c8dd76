"""The memory that a model needs on a device without an operating system: flash for its constants, RAM for the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnxprune.model.constants import constant_tensor, constants
from onnxprune.model.shapes.inference import MICROSOFT, branches, infer_shapes

# Operators whose output is their input under another shape.
VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})

# Operators of com.microsoft whose output is of another type than their first input.
TO_FLOAT = frozenset({"MatMulIntegerToFloat", "DynamicQuantizeMatMul"})
QGEMM_ZERO_POINT = 8


def constant_bytes(model: ir.Model) -> int:
    """Bytes of all constants, which lie in flash."""
    return sum(tensor.nbytes for value in constants(model) if (tensor := constant_tensor(value)) is not None)


def peak_activation_bytes(model: ir.Model, input_shapes: Mapping[str, Sequence[int]]) -> int | None:
    """The most bytes of inputs and activations that are needed at once, in the order of the nodes; None if not known.

    A tensor is needed from the node that makes it to the last one that reads it; inputs from the beginning, outputs to
    the end. No node works in place, but views (Reshape and its like) take nothing, and layers between DequantizeLinear
    and QuantizeLinear have integers alone. What kernels need besides is not counted. `input_shapes`: of one run, by
    name. `model` is given the types that it does not declare.
    """
    order = list(_in_order(model.graph))
    ShapeInferencePass()(model)
    for node in order:
        known = node.domain != MICROSOFT or node.outputs[0].dtype is not None
        if not known and (dtype := _output_type(node)) is not None:
            node.outputs[0].dtype = dtype
            ShapeInferencePass()(model)
    shapes = infer_shapes(model, input_shapes)
    first, last = _lives(model, order)
    sizes = {value: _bytes(value, shapes.get(value)) for value in first}
    if any(size is None for size in sizes.values()):
        return None
    changes = [0] * (len(order) + 2)
    for value, size in sizes.items():
        changes[first[value]] += size or 0
        changes[last[value] + 1] -= size or 0
    return max(accumulate(changes))


def _in_order(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes as they run, those of the bodies of an If before it."""
    for node in graph:
        for branch in branches(node):
            yield from _in_order(branch)
        yield node


def _output_type(node: ir.Node) -> ir.DataType | None:
    """The type of the output of an operator of com.microsoft, of which ONNX knows none."""
    if node.op_type == "QGemm":
        zero_point = node.inputs[QGEMM_ZERO_POINT] if len(node.inputs) > QGEMM_ZERO_POINT else None
        return ir.DataType.FLOAT if zero_point is None else zero_point.dtype
    if node.op_type in TO_FLOAT:
        return ir.DataType.FLOAT
    return None if node.inputs[0] is None else node.inputs[0].dtype


def _lives(model: ir.Model, order: Sequence[ir.Node]) -> tuple[dict[ir.Value, int], dict[ir.Value, int]]:
    """The first and the last step at which each tensor with memory of its own is needed."""
    owner: dict[ir.Value | None, ir.Value | None] = {}
    for node in order:
        if _is_view(node):
            owner[node.outputs[0]] = owner.get(node.inputs[0], node.inputs[0])
        elif _computes_integers(node):
            owner[node.outputs[0]] = next(iter(node.outputs[0].uses())).node.outputs[0]
    first = {value: 0 for value in model.graph.inputs if not value.is_initializer()}
    last = dict(first)
    for step, node in enumerate(order):
        for value in (*node.inputs, *node.outputs):
            kept = owner.get(value, value)
            if kept is not None and not _is_constant(kept):
                first.setdefault(kept, step)
                last[kept] = step
    for value in model.graph.outputs:
        kept = owner.get(value, value)
        if kept in first:
            last[kept] = len(order)
    return first, last


def _is_view(node: ir.Node) -> bool:
    """Whether the output is the input: under another shape, or read by layers alone that compute in integers."""
    if node.domain not in ("", "ai.onnx") or node.op_type != "DequantizeLinear":
        return node.domain in ("", "ai.onnx") and node.op_type in VIEWS
    uses = node.outputs[0].uses()
    return (
        bool(uses)
        and not node.outputs[0].is_graph_output()
        and all(_computes_integers(use.node) for use in uses)
    )


def _computes_integers(node: ir.Node) -> bool:
    """Whether a layer stands between DequantizeLinear and QuantizeLinear, so that runtimes compute it in integers."""
    output = node.outputs[0] if len(node.outputs) == 1 else None
    if (
        output is None
        or output.is_graph_output()
        or [use.node.op_type for use in output.uses()] != ["QuantizeLinear"]
    ):
        return False
    makers = [value.producer() for value in node.inputs if value is not None and not _is_constant(value)]
    return bool(makers) and all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() or constant_tensor(value) is not None


def _bytes(value: ir.Value, shape: Sequence[int | str | None] | None) -> int | None:
    """Bytes of a tensor; 0 for one that is left out."""
    if not value.name:
        return 0
    if shape is None or value.dtype is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return math.ceil(math.prod(int(dim) for dim in shape if isinstance(dim, int)) * value.dtype.itemsize)

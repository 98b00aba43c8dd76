"""The shapes of all values of a model's main graph, inferred without touching the model or copying its weights."""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir

from onnxprune.model.weights import constant_tensor

# Constants up to this size may be shapes, axes and the like, which inference must see.
SMALL_TENSOR_BYTES = 1024

Dim = int | str | None
"""A number, the name of a symbolic dimension, or None where nothing is known."""


def infer_shapes(model: ir.Model) -> dict[ir.Value, tuple[Dim, ...]]:
    """The shape of every value whose rank is known; what the model declares and what ONNX infers, together."""
    inferred = _infer(_without_weights(model))
    shapes = {}
    for value in _values(model.graph):
        tensor = constant_tensor(value)
        shape = inferred.get(value.name or "") if tensor is None else tuple(tensor.shape.numpy())
        if shape is not None:
            shapes[value] = shape
    return shapes


def _infer(proto: onnx.ModelProto) -> dict[str, tuple[Dim, ...] | None]:
    """ONNX's inference, repeated as long as a solved Reshape tells it more; `proto` gets the solutions."""
    solved: dict[str, onnx.ValueInfoProto] = {}
    while True:
        try:
            graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        except onnx.shape_inference.InferenceError:
            graph = proto.graph
        shapes = {info.name: _shape(info) for info in (*graph.input, *graph.value_info, *graph.output)}
        infos = {info.name: info for info in (*graph.input, *graph.value_info, *graph.output)}
        shapes = {name: _shape(info) for name, info in infos.items()}
        before = len(solved)
        for node in graph.node:
            if node.op_type == "Reshape" and node.output[0] not in solved:
                name = node.output[0]
                shape = _solve(shapes.get(node.input[0]), shapes.get(name))
                if shape is not None:
                    element_type = infos[name].type.tensor_type.elem_type
                    solved[name] = onnx.helper.make_tensor_value_info(name, element_type, shape)
        if len(solved) == before:
            return shapes
        kept = [info for info in proto.graph.value_info if info.name not in solved]
        del proto.graph.value_info[:]
        proto.graph.value_info.extend([*kept, *solved.values()])


def _solve(left: tuple[Dim, ...] | None, right: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
    """The shape of a Reshape's output, where ONNX leaves one size open that the others tell; else None.

    _solve(("N", 16, 5, 5), ("N", None)) -> ("N", 400).
    """
    if left is None or right is None or 0 in left:
        return None
    symbols = [dim for dim in left if not isinstance(dim, int)]
    left_open = []
    for axis, dim in enumerate(right):
        if dim in symbols and dim is not None:
            symbols.remove(dim)
        elif not isinstance(dim, int):
            left_open.append(axis)
    total = math.prod(dim for dim in left if isinstance(dim, int))
    told = math.prod(dim for dim in right if isinstance(dim, int))
    if symbols or len(left_open) != 1 or told == 0 or total % told:
        return None
    return tuple(total // told if axis in left_open else dim for axis, dim in enumerate(right))


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made]


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model with every larger constant turned into a graph input of its type and shape."""
    graph = onnx.GraphProto(name="shapes")
    inputs = {value.name for value in model.graph.inputs}
    for value in model.graph.inputs:
        if not value.is_initializer():
            graph.input.append(ir.to_proto(value))
    outputs = {value.name for value in model.graph.outputs}
    graph.output.extend(ir.to_proto(value) for value in model.graph.outputs)
    for value in _values(model.graph):
        tensor = constant_tensor(value)
        if tensor is not None:
            if tensor.nbytes > SMALL_TENSOR_BYTES:
                shape = tensor.shape.numpy()
                graph.input.append(onnx.helper.make_tensor_value_info(value.name or "", tensor.dtype, shape))
            elif value.producer() is None:
                small = ir.to_proto(tensor)
                small.name = value.name or ""
                graph.initializer.append(small)
        elif value.name not in inputs | outputs and value.type is not None:
            graph.value_info.append(ir.to_proto(value))
    for node in model.graph:
        tensor = constant_tensor(node.outputs[0]) if node.outputs else None
        if tensor is None or tensor.nbytes <= SMALL_TENSOR_BYTES:
            graph.node.append(ir.to_proto(node))
    opsets = [
        onnx.helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()
    ]
    functions = [ir.to_proto(function) for function in model.functions.values()]
    return onnx.helper.make_model(
        graph, ir_version=max(model.ir_version, 4), opset_imports=opsets, functions=functions
    )


def _shape(info: onnx.ValueInfoProto) -> tuple[Dim, ...] | None:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in info.type.tensor_type.shape.dim
    )

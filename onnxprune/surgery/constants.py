"""Changing what one node computes or reads, without changing constants for other nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.model.operands import operand


def replace_operand(node: ir.Node, index: int, array: np.ndarray, dtype: ir.DataType) -> None:
    """Replace the constant `node.inputs[index]`: in place if no other node reads it, else by a new initializer."""
    value = operand(node, index)
    alone = value is not None and len(value.uses()) == 1 and not value.is_graph_output()
    if value is not None and alone and constant_tensor(value) is not None:
        set_constant(value, array, dtype)
        return
    stem = value.name if value is not None else node.outputs[0].name
    new = new_initializer(node.graph, f"{stem}_{node.op_type.lower()}", array, dtype)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)


def add_to_operand(
    node: ir.Node, index: int, delta: np.ndarray, dtype: ir.DataType, scale: float = 1.0
) -> None:
    """scale * operand + delta, summed in float64; an absent operand is zero and becomes one of type `dtype`.

    Integers beyond their type wrap around, as the sums do that they are added to.
    """
    tensor = constant_tensor(operand(node, index))
    total = delta
    if tensor is not None:
        dtype = tensor.dtype
        total = tensor.numpy().astype(np.float64) * scale + delta
    whole = np.dtype(dtype.numpy()).kind in "iu"
    replace_operand(node, index, (total.astype(np.int64) if whole else total).astype(dtype.numpy()), dtype)


def insert_add(value: ir.Value, delta: np.ndarray, dtype: ir.DataType) -> None:
    """Replace `value` by value + delta, which takes over its name and its readers."""
    node = value.producer()
    assert node is not None and node.graph is not None
    graph, name = node.graph, value.name
    bias = new_initializer(graph, f"{name}_bias", delta.astype(dtype.numpy()), dtype)
    add = ir.node("Add", [value, bias], name=f"{node.name}_bias" if node.name else None)
    total = add.outputs[0]
    total.type, total.shape = value.type, value.shape
    value.replace_all_uses_with(total, replace_graph_outputs=True)
    add.replace_input_with(0, value)
    graph.insert_after(node, add)
    value.name = free_name(graph, f"{name}_unbiased")
    total.name = name


def become(node: ir.Node, op_type: str, inputs: Sequence[ir.Value]) -> None:
    """Make a node another operator of the same domain, without attributes; its name and first output stay."""
    node.op_type = op_type
    node.attributes.clear()
    node.resize_outputs(1)
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def drop_unneeded(values: list[ir.Value]) -> None:
    """Remove the nodes that make these values, and what only they read, where nothing else needs it."""
    left = list(values)
    while left:
        maker = left.pop().producer()
        if maker is None or maker.graph is None:
            continue
        if any(value.uses() or value.is_graph_output() for value in maker.outputs):
            continue
        left += [value for value in maker.inputs if value is not None]
        maker.graph.remove(maker, safe=True)


def origin(value: ir.Value | None) -> ir.Value | None:
    """What a value is under another name; torch.onnx lets constants that are equal share one by Identity nodes."""
    while value is not None and (node := value.producer()) is not None and node.op_type == "Identity":
        value = node.inputs[0]
    return value


def new_initializer(graph: ir.Graph | None, name: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
    """A new initializer of the graph, under `name` or the first free name after it."""
    assert graph is not None
    name = free_name(graph, name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(dtype))
    value.const_value = ir.Tensor(array, dtype=dtype, name=name)
    graph.register_initializer(value)
    return value


def free_name(graph: ir.Graph, name: str) -> str:
    """The name, or the first free one after it, for a value of the graph."""
    taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    taken |= {value.name for node in graph.all_nodes() for value in node.outputs}
    taken |= {value.name for sub in graph.subgraphs() for value in (*sub.inputs, *sub.initializers.values())}
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate

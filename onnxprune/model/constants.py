"""The constants of a graph, both initializers and Constant nodes: reading, listing and replacing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant node's output; None for anything else."""
    if value is None:
        return None
    if value.const_value is not None and value.is_initializer():
        return value.const_value
    node = value.producer()
    if node is not None and node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
        attribute = node.attributes.get("value")
        if attribute is not None and not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
            return attribute.as_tensor()
    return None


def constants(model: ir.Model) -> Iterator[ir.Value]:
    """Every initializer and output of a Constant node, subgraphs included."""
    for graph in model.graphs():
        values = [*graph.initializers.values(), *(output for node in graph for output in node.outputs)]
        yield from (value for value in values if constant_tensor(value) is not None)


def constants_read(nodes: Iterable[ir.Node]) -> set[ir.Value]:
    """The constants that nodes read themselves."""
    values = (value for node in nodes for value in node.inputs if value is not None)
    return {value for value in values if constant_tensor(value) is not None}


def set_constant(value: ir.Value, array: np.ndarray, dtype: ir.DataType) -> None:
    """Replace the tensor of an initializer or Constant node by `array`, under the same name."""
    node, old = value.producer(), constant_tensor(value)
    assert old is not None, value.name
    new = ir.Tensor(
        array,
        dtype=dtype,
        name=value.name if node is None else old.name,
        doc_string=old.doc_string,
        metadata_props=dict(old.metadata_props),
    )
    put_tensor(value, new)
    if value.shape is not None or node is None:
        value.shape = ir.Shape(array.shape)


def put_tensor(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Replace the tensor of an initializer or Constant node by one of the same shape."""
    node = value.producer()
    if node is not None:
        node.attributes["value"] = ir.AttrTensor("value", tensor)
    else:
        value.const_value = tensor


def drop_constant(value: ir.Value) -> None:
    """Remove a constant that nothing reads from its graph, and from the inputs that list it."""
    node = value.producer()
    if node is not None:
        assert node.graph is not None
        node.graph.remove(node, safe=True)
        return
    graph = value.graph
    assert graph is not None and value.name is not None
    del graph.initializers[value.name]
    # Whoever still holds the value need not hold the weight as well.
    value.const_value = None
    if value.is_graph_input():
        graph.inputs.remove(value)

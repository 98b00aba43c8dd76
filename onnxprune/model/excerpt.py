"""What nodes need to run as a model of their own: the values that they read, and the types of these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node reads, including those that its subgraphs read from outside."""
    yield from (value for value in node.inputs if value is not None)
    for body in bodies(node).values():
        inner = {*body.inputs, *body.initializers.values(), *(v for n in body for v in n.outputs)}
        outer = [*(value for node in body for value in reads(node)), *body.outputs]
        yield from (value for value in outer if value not in inner)


def reads_within(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node or a node of its subgraphs reads, those of the subgraphs themselves among them."""
    yield from (value for value in node.inputs if value is not None)
    for body in bodies(node).values():
        for inner in body:
            yield from reads_within(inner)


def bodies(node: ir.Node) -> dict[str, ir.Graph]:
    """The subgraphs of a node, by the names of their attributes."""
    return {
        name: attribute.as_graph()
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    }


def typed_input(name: str, given: Any) -> onnx.ValueInfoProto:
    """A graph input for what was computed for a value: an array of any size, or a list of them for a sequence."""
    if isinstance(given, list):
        kind = element_type(given[0]) if given else onnx.TensorProto.FLOAT
        return onnx.helper.make_tensor_sequence_value_info(name, kind, None)
    return onnx.helper.make_tensor_value_info(name, element_type(given), [None] * given.ndim)


def element_type(array: np.ndarray) -> int:
    """The ONNX element type of an array; of texts in any of numpy's types, STRING."""
    if array.dtype.kind in "OSU":
        return onnx.TensorProto.STRING
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))

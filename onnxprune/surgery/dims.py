"""Shapes that the graph computes: where each element of a shape vector comes from, and how to change one.

Exporters write Reshape(x, Concat(Gather(Shape(x), 0), -1, heads, width)). Sizes that are numbers can be rewritten.
Sizes from Shape follow automatically, if the axis that Shape reads is coupled with the axis that has this size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.surgery.constants import replace_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Coupling, Stays

LARGEST_SHAPE = 64  # elements; longer vectors are not shapes
MOVES = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape")
# (operator, index of the input) that is the shape of the output.
TARGETS = (("Reshape", 1), ("Expand", 1), ("ConstantOfShape", 0), ("Resize", 3))


@dataclass(frozen=True)
class Size:
    """The size of an axis, read by Shape when the model runs."""

    axis: Axis


def trace(value: ir.Value | None, facts: Facts) -> np.ndarray | None:
    """The elements of an integer value: an int, a Size, or None where it is not known; dtype object.

    None where the value is not a shape, or is computed by other operators than those followed here.
    """
    if value is None:
        return None
    known = facts.constant(value)
    if known is not None:
        return known.astype(object) if known.dtype.kind == "i" and known.size <= LARGEST_SHAPE else None
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Shape":
        return _sizes(node, facts)
    if node.op_type == "Concat":
        return _concatenated(node, facts)
    if node.op_type not in (*MOVES, "Gather", "Slice"):
        return None
    source = trace(node.inputs[0], facts)
    try:
        return None if source is None else _moved(node, source, facts)
    except (IndexError, ValueError):
        # A node that no output needs is never run, and may be invalid.
        return None


def follow_sizes(
    node: ir.Node, target: ir.Value | None, facts: Facts, passed: Collection[int]
) -> Iterator[Coupling | Stays]:
    """Couple each axis whose size `target` reads with the output axis of that size.

    Where the node does not pass the output's axis on (it is not in `passed`), the axis is frozen.
    """
    out = node.outputs[0]
    elements = trace(target, facts)
    for axis, element in enumerate(() if elements is None else elements.ravel()):
        if isinstance(element, Size):
            made = Axis(out, axis)
            length = facts.length(element.axis)
            if length is None:
                continue
            if axis in passed and facts.length(made) == length:
                yield Coupling(element.axis, made)
            else:
                yield Stays(element.axis, f"{node.op_type} node {node.name!r} uses its size for another axis")


def sizes_read(value: ir.Value, facts: Facts) -> set[Axis]:
    """The axes whose sizes a value holds, where a reader would not follow a change of them."""
    elements = trace(value, facts)
    held = {
        element.axis
        for element in (() if elements is None else elements.ravel())
        if isinstance(element, Size)
    }
    read: set[Axis] = set()
    if value.is_graph_output():
        read |= held
    for use in value.uses():
        onward = trace(use.node.outputs[0], facts)
        if use.node.graph not in facts.graphs:
            read |= held
        elif onward is not None and use.node.op_type != "Shape":
            read |= sizes_read(use.node.outputs[0], facts) & held
        elif (use.node.op_type, use.idx) not in TARGETS:
            read |= held
    return read


def set_size(node: ir.Node, index: int, element: int, size: int, facts: Facts) -> None:
    """Set `element` of the shape vector `node.inputs[index]` to `size`, for this node only."""
    value = node.inputs[index]
    assert value is not None
    tensor = constant_tensor(value)
    array = facts.constant(value) if tensor is None else tensor.numpy()
    if array is not None:
        array = array.copy()
        array.reshape(-1)[element] = size
        replace_operand(node, index, array, ir.DataType.from_numpy(array.dtype))
        return
    maker = value.producer()
    assert maker is not None and maker.op_type in (*MOVES, "Concat")
    if len(value.uses()) > 1:
        maker = _own_copy(node, index, maker)
    if maker.op_type in MOVES:
        set_size(maker, 0, element, size, facts)
        return
    for part_index, part in enumerate(maker.inputs):
        (length,) = facts.shape(part) or (0,)
        assert isinstance(length, int)
        if element < length:
            set_size(maker, part_index, element, size, facts)
            return
        element -= length


def _sizes(node: ir.Node, facts: Facts) -> np.ndarray | None:
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    if data is None or shape is None:
        return None
    elements = np.empty(len(shape), object)
    elements[:] = [Size(Axis(data, axis)) for axis in range(len(shape))]
    return elements[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(shape))]


def _concatenated(node: ir.Node, facts: Facts) -> np.ndarray | None:
    parts = []
    for value in node.inputs:
        shape, part = facts.shape(value), trace(value, facts)
        if shape is None or len(shape) != 1 or not isinstance(shape[0], int) or shape[0] > LARGEST_SHAPE:
            return None
        parts.append(np.full(shape[0], None, object) if part is None else part)
    return np.concatenate(parts)


def _moved(node: ir.Node, source: np.ndarray, facts: Facts) -> np.ndarray | None:
    others = [facts.constant(value) for value in node.inputs[1:]]
    shape = facts.shape(node.outputs[0])
    if any(other is None for other in others) or shape is None:
        return None
    if node.op_type == "Gather":
        index = others[0]
        assert index is not None
        return _sizes_alone(np.take(source, np.asarray(index).reshape(-1), axis=0).reshape(np.shape(index)))
    if node.op_type == "Slice":
        if len(others) < 2 or source.ndim != 1:
            return None
        start, end = (int(other.ravel()[0]) for other in others[:2])  # type: ignore[union-attr]
        step = int(others[3].ravel()[0]) if len(others) > 3 else 1  # type: ignore[union-attr]
        return _sizes_alone(source[start:end:step])
    if not all(isinstance(dim, int) for dim in shape):
        return None
    return source.reshape(shape)  # type: ignore[arg-type]


def _sizes_alone(elements: np.ndarray) -> np.ndarray:
    """The elements without the numbers, which Gather and Slice read from a vector that other nodes may read too."""
    kept = np.empty(elements.shape, object)
    sized = np.array([isinstance(element, Size) for element in elements.ravel()], bool).reshape(
        elements.shape
    )
    kept[sized] = elements[sized]
    return kept


def _own_copy(node: ir.Node, index: int, maker: ir.Node) -> ir.Node:
    shared = maker.outputs[0]
    copy = ir.Node(maker.domain, maker.op_type, maker.inputs, maker.attributes.values())
    copy.outputs[0].type, copy.outputs[0].shape = shared.type, shared.shape
    assert maker.graph is not None
    maker.graph.insert_after(maker, copy)
    node.replace_input_with(index, copy.outputs[0])
    return copy

"""Shapes that the graph computes: where each element of a shape vector comes from, and how to change one.

Exporters write Reshape(x, Concat(Gather(Shape(x), 0), -1, heads, width)). Sizes that are numbers can be rewritten, and
so can what is computed from static sizes alone: it becomes a number before an axis changes. Static sizes that are read
together with symbolic ones follow, if the axis that Shape reads is coupled with the axis that has this size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.names import name_of
from onnxprune.model.shapes.sizes import MOVES, Element
from onnxprune.surgery.constants import new_initializer, replace_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Coupling, Stays

# (operator, index of the input) that is the shape of the output.
TARGETS = (("Reshape", 1), ("Expand", 1), ("ConstantOfShape", 0), ("Resize", 3))


def changeable(element: Element) -> bool:
    """Whether the size that an element of a target gives can change: it can be rewritten, or follows another size."""
    return element.stored or element.copied is not None


def follow_sizes(
    node: ir.Node, target: ir.Value | None, facts: Facts, passed: Collection[int]
) -> Iterator[Coupling | Stays]:
    """Couple each axis whose size `target` copies when the model runs with the output axis of that size.

    Where the node does not pass the output's axis on (it is not in `passed`), the axis is frozen, and so are axes from
    whose sizes others are computed. What is known as a whole is none of these: it becomes a constant.
    """
    out = node.outputs[0]
    elements = facts.elements(target)
    for place, element in enumerate(() if elements is None else elements.ravel()):
        made = Axis(out, place)
        for axis in () if element.stored else element.axes:
            length = facts.length(axis)
            if length is None:
                continue
            if axis == element.copied and place in passed and facts.length(made) == length:
                yield Coupling(axis, made)
            else:
                yield Stays(axis, f"{node.op_type} node {name_of(node)!r} uses its size for another axis")


def sizes_read(value: ir.Value, facts: Facts) -> set[Axis]:
    """The axes whose sizes a value holds, where a reader would not follow a change of them."""
    elements = facts.elements(value)
    everything: set[Axis] = set()
    held: set[Axis] = set()
    for element in () if elements is None else elements.ravel():
        everything |= element.axes
        held |= set() if element.stored else element.axes
    read: set[Axis] = set()
    if value.is_graph_output():
        read |= everything
    for use in value.uses():
        if use.node.graph not in facts.graphs:
            read |= everything
        elif (use.node.op_type, use.idx) in TARGETS:
            continue
        elif facts.elements(use.node.outputs[0]) is not None and use.node.op_type != "Shape":
            read |= sizes_read(use.node.outputs[0], facts) & everything
        else:
            read |= held
    return read


def settle_sizes(facts: Facts, changing: Collection[Axis]) -> None:
    """Make constants of the integers that are known as a whole and computed from the sizes of axes that will change."""
    for node in list(facts.nodes()):
        if facts.sized(node.outputs[0] if node.outputs else None) is not None:
            continue
        for index, value in enumerate(node.inputs):
            array = facts.sized(value)
            if array is None or value is None or constant_tensor(value) is not None:
                continue
            elements = facts.elements(value)
            assert elements is not None
            if any(not element.axes.isdisjoint(changing) for element in elements.ravel()):
                replace_operand(node, index, array, ir.DataType.from_numpy(array.dtype))


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
    assert maker is not None
    if maker.op_type not in (*MOVES, "Concat"):
        _splice(node, index, element, size, facts)
        return
    if len(value.uses()) > 1:
        maker = _own_copy(node, index, maker)
    if maker.op_type in MOVES:
        set_size(maker, 0, element, size, facts)
        return
    for part_index, part in enumerate(maker.inputs):
        length = _length(part, facts)
        if element < length:
            set_size(maker, part_index, element, size, facts)
            return
        element -= length


def _splice(node: ir.Node, index: int, element: int, size: int, facts: Facts) -> None:
    """Replace one element of `node.inputs[index]`, whatever computes it, by a Concat of a number and the others."""
    value, graph = node.inputs[index], node.graph
    assert value is not None and graph is not None
    length, parts, dtype = _length(value, facts), list[ir.Value](), value.dtype or ir.DataType.INT64
    for start, end in ((0, element), (element + 1, length)):
        if start < end:
            bounds = [
                new_initializer(graph, f"{value.name}_{name}", np.array([at]), ir.DataType.INT64)
                for name, at in (("start", start), ("end", end))
            ]
            part = ir.node("Slice", [value, *bounds])
            part.outputs[0].name = f"{bounds[1].name}_part"
            part.outputs[0].shape, part.outputs[0].type = ir.Shape([end - start]), ir.TensorType(dtype)
            graph.insert_before(node, part)
            parts.append(part.outputs[0])
        if start == 0:
            parts.append(new_initializer(graph, f"{value.name}_size", np.array([size], dtype.numpy()), dtype))
    whole = ir.node("Concat", parts, {"axis": 0})
    whole.outputs[0].name = f"{parts[-1].name}_whole"
    whole.outputs[0].shape, whole.outputs[0].type = ir.Shape([length]), ir.TensorType(dtype)
    graph.insert_before(node, whole)
    node.replace_input_with(index, whole.outputs[0])


def _length(part: ir.Value | None, facts: Facts) -> int:
    """The length of a vector, which may be newer than the facts."""
    shape = facts.shape(part)
    if shape is None and part is not None and part.shape is not None:
        shape = tuple(part.shape.numpy())
    (length,) = shape or (0,)
    assert isinstance(length, int)
    return length


def _own_copy(node: ir.Node, index: int, maker: ir.Node) -> ir.Node:
    shared = maker.outputs[0]
    copy = ir.Node(maker.domain, maker.op_type, maker.inputs, maker.attributes.values())
    copy.outputs[0].type, copy.outputs[0].shape = shared.type, shared.shape
    assert maker.graph is not None
    maker.graph.insert_after(maker, copy)
    node.replace_input_with(index, copy.outputs[0])
    return copy

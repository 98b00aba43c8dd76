"""The constants of a graph that a sparse weight is stored in: their names, where they stand, how they come and go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

import onnx_ir as ir

_PARTS = ("values", "gaps", "shape", "coded", "quantized", "halved", "packed", "scales", "layout")

# What names of constants that hold a weight's values end in.
_STORED = r"\.(values|coded|quantized|halved)$"


def value_names(model: ir.Model) -> set[str]:
    """The names of all values in the graph and its subgraphs."""
    names: set[str | None] = set()
    for graph in (model.graph, *model.graph.subgraphs()):
        names.update(value.name for value in (*graph.inputs, *graph.initializers.values()))
        names.update(output.name for node in graph for output in node.outputs)
    return {name for name in names if name}


def part_names(weight_name: str, taken: set[str]) -> dict[str, str]:
    """Names for the parts of a weight; numbered alike where one of them is taken."""
    for number in count(1):
        ending = "" if number == 1 else f"_{number}"
        names = {part: f"{weight_name}.{part}{ending}" for part in _PARTS}
        if taken.isdisjoint(names.values()):
            break
    taken.update(names.values())
    return names


def weight_name(values: str, taken: set[str]) -> str:
    """The weight's name as `part_names` was given it: 'fc.values_2' -> 'fc'.

    Graphs side by side may hold weights of one name, so that what is restored here does not count as taken.
    """
    match = re.fullmatch(r"(.+)\.(?:values|coded)(?:_\d+)?", values)
    wanted = match[1] if match else f"{values}.weight"
    return next(name for name in _numbered(wanted) if name not in taken)


def free_name(wanted: str, taken: set[str]) -> str:
    """A name that is not taken yet, and is from now on; numbered where it was."""
    name = next(name for name in _numbered(wanted) if name not in taken)
    taken.add(name)
    return name


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def add_constant(beside: ir.Value, name: str, node_ending: str, tensor: ir.Tensor) -> ir.Value:
    """A constant like `beside`: an initializer of its graph, or a Constant node before its own."""
    node = beside.producer()
    if node is None:
        graph = beside.graph
        assert graph is not None
        value = ir.Value(name=name, const_value=tensor)
        graph.register_initializer(value)
    else:
        graph = node.graph
        assert graph is not None
        constant = ir.Node(
            "",
            "Constant",
            [],
            [ir.AttrTensor("value", tensor)],
            name=f"{re.sub(_STORED, '', node.name)}{node_ending}" if node.name else "",
            doc_string=node.doc_string,
            metadata_props=dict(node.metadata_props),
        )
        value = constant.outputs[0]
        value.name = name
        graph.insert_before(node, constant)
    if beside.type is not None:
        value.type = ir.TensorType(tensor.dtype)
        value.shape = tensor.shape
    value.doc_string = beside.doc_string
    value.metadata_props.update(beside.metadata_props)
    return value

"""Walking the graphs, nodes and tensors of a ModelProto."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The subgraphs of a node: its graph attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def attribute_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    """The tensor attributes of a node."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def with_nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for graph in bodies(node):
            yield from with_nested(graph.node)


def all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes: of the graph, of functions, and of the subgraphs in either."""
    yield from with_nested(proto.graph.node)
    for function in proto.functions:
        yield from with_nested(function.node)


def all_graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph, and the subgraphs of all nodes."""
    yield proto.graph
    for node in all_nodes(proto):
        yield from bodies(node)


def all_tensors(proto: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """Every dense tensor, and whether it is a constant of a graph: an initializer, or in a Constant node."""
    yield from ((tensor, True) for tensor in proto.graph.initializer)
    scopes = [(proto.graph.node, True), *((function.node, False) for function in proto.functions)]
    for nodes, in_graph in scopes:
        for node in with_nested(nodes):
            constant = in_graph and node.op_type == "Constant"
            yield from ((tensor, constant) for tensor in attribute_tensors(node))
            yield from ((tensor, in_graph) for body in bodies(node) for tensor in body.initializer)


def locations(proto: onnx.ModelProto) -> Iterator[onnx.StringStringEntryProto]:
    """The entries that name the files of external data, one for each tensor with such data."""
    for tensor, _ in all_tensors(proto):
        yield from (entry for entry in tensor.external_data if entry.key == "location")

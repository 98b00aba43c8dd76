"""Biases and norm parameters that several nodes share: during surgery, each reader has its own copy.

Two layers that share a bias could otherwise lose only the units that both lose. Weights stay shared, because tied
weights are tied on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.reading import FLOAT_TYPES
from onnxprune.model.shapes.inference import with_branches
from onnxprune.model.slots import slots

# Of norm parameters and biases, and of quantized operators' scales and zero points.
TYPES = (*FLOAT_TYPES, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32)


@dataclass(frozen=True)
class OwnCopy:
    """The copy of a shared vector that `node.inputs[index]` reads."""

    node: ir.Node
    index: int
    copy: ir.Value


@contextmanager
def own_vectors(model: ir.Model) -> Iterator[Mapping[ir.Value, ir.Value]]:
    """Inside the context, every reader of a shared vector has its own copy; afterwards, equal copies are merged.

    Yields copy -> original.
    """
    graphs = list(with_branches(model.graph))
    taken = {value.name for graph in model.graphs() for value in graph.initializers.values()}
    taken |= {value.name for node in model.graph.all_nodes() for value in node.outputs}
    made: list[tuple[ir.Value, OwnCopy]] = []
    for value in [value for graph in graphs for value in _constants(graph) if _is_vector(value)]:
        for number, use in enumerate(tuple(value.uses())[1:], start=1):
            if use.node.graph in graphs:
                made.append((value, OwnCopy(use.node, use.idx, _copy(value, number, taken))))
                use.node.replace_input_with(use.idx, made[-1][1].copy)
    yield {own.copy: original for original, own in made}
    for original, own in made:
        if _same(constant_tensor(original), constant_tensor(own.copy)):
            own.copy.replace_all_uses_with(original)
            assert own.copy.graph is not None
            own.copy.graph.initializers.pop(own.copy.name or "")


def _constants(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return [value for value in (*graph.initializers.values(), *made) if constant_tensor(value) is not None]


def _is_vector(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return (
        tensor is not None
        and len(value.uses()) > 1
        and tensor.dtype in TYPES
        and sum(length > 1 for length in tensor.shape.numpy()) == 1
        and not any(_is_weight(use.node, use.idx) for use in value.uses())
        and not value.is_graph_input()
        and not value.is_graph_output()
    )


def _is_weight(node: ir.Node, index: int) -> bool:
    """Whether a node reads a weight there: some have one axis that is longer than 1, such as filters of a signal."""
    return any(slot.input_index == index for slot in slots(node))


def _copy(value: ir.Value, number: int, taken: set[str | None]) -> ir.Value:
    tensor = constant_tensor(value)
    graph = value.graph
    assert tensor is not None and graph is not None
    name = f"{value.name}_{number}"
    while name in taken:
        name += "_"
    taken.add(name)
    copy = ir.Value(name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype))
    copy.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
    graph.register_initializer(copy)
    return copy


def _same(left: ir.TensorProtocol | None, right: ir.TensorProtocol | None) -> bool:
    return left is not None and right is not None and np.array_equal(left.numpy(), right.numpy())

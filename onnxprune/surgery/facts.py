"""Static knowledge about a model's values: their shapes, and which elements are constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.reading import QUANTIZED_TYPES
from onnxprune.model.shapes import sizes
from onnxprune.model.shapes.folding import folded_integers
from onnxprune.model.shapes.inference import Dim, branches, infer_shapes_and_types, with_branches
from onnxprune.model.weights import find_weights
from onnxprune.surgery.axes import Axis
from onnxprune.surgery.connections import Connections
from onnxprune.surgery.evaluate import evaluate_node


class Facts:
    """Shapes and known elements of all values, those in If bodies included, for the model as it was at construction."""

    def __init__(self, model: ir.Model):
        self.model = model
        self.opset = model.graph.opset_imports.get("", 0)
        self.graphs = frozenset(with_branches(model.graph))
        self._shapes, self._types = infer_shapes_and_types(model)
        self._folded = folded_integers(model, list(with_branches(model.graph)))
        self._known: dict[ir.Value, np.ma.MaskedArray] = {}
        self._stored: dict[ir.Value, np.ndarray | None] = {}
        self._elements: dict[ir.Value, np.ndarray | None] = {}
        # As bits: booleans would take a quarter of the memory of the weights.
        self._connections: dict[tuple[ir.Value, int, int], Connections] = {}
        self._zeros: dict[ir.Value, np.ndarray] | None = None

    def nodes(self) -> Iterator[ir.Node]:
        """All nodes in order; those in the bodies of an If before the If itself."""
        yield from _nodes(self.model.graph)

    def shape(self, value: ir.Value | None) -> tuple[Dim, ...] | None:
        """The shape of a value; None where its rank is not known."""
        return None if value is None else self._shapes.get(value)

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        """The element type of a value, declared or inferred; None where it is not known."""
        return None if value is None else self._types.get(value)

    def rank(self, value: ir.Value) -> int:
        """The number of axes of a value whose shape is known."""
        return len(self._shapes[value])

    def length(self, axis: Axis) -> int | None:
        """The length of an axis; None where it is symbolic, or the value has no such axis."""
        shape = self._shapes.get(axis.value, ())
        length = shape[axis.dim] if -len(shape) <= axis.dim < len(shape) else None
        return length if isinstance(length, int) else None

    def shapes(self) -> Mapping[ir.Value, tuple[Dim, ...]]:
        """The shapes of all values whose rank is known."""
        return self._shapes

    def overridable(self, value: ir.Value) -> bool:
        """Whether a caller may feed the initializer; before IR version 4, all initializers were graph inputs."""
        return value.is_graph_input() and value.is_initializer() and self.model.ir_version >= 4

    def known(self, value: ir.Value | None) -> np.ma.MaskedArray | None:
        """The elements of a value, masked where they depend on the inputs; None where all do.

        Every axis has its full length, or length 1 where the value is the same along it (a symbolic batch axis always
        has length 1).
        """
        if value is None:
            return None
        if value in self._known:
            return self._known[value]
        array = self.constant(value)
        return None if array is None else np.ma.asarray(array)

    def stored(self, value: ir.Value | None) -> np.ndarray | None:
        """The tensor of an initializer or Constant node that nobody can override; else None."""
        if value is None:
            return None
        if value not in self._stored:
            self._stored[value] = None if self.overridable(value) else _stored_array(value)
        return self._stored[value]

    def constant(self, value: ir.Value | None) -> np.ndarray | None:
        """The whole value where it is a constant, stored or computed; else None."""
        if value is None:
            return None
        stored = self._folded.get(value) if value in self._folded else self.stored(value)
        stored = self.sized(value) if stored is None else stored
        if stored is not None:
            return stored
        known = self._known.get(value)
        if known is None or known.shape != self.shape(value) or np.ma.getmaskarray(known).any():
            return None
        return known.data

    def elements(self, value: ir.Value | None) -> np.ndarray | None:
        """The elements of a small array of integers, of sizes.Element; None where its positions are not known."""
        if value is None:
            return None
        if value not in self._elements:
            found = self._traced(value)
            if found is not None and all(isinstance(element.dim, int) for element in found.ravel()):
                whole = [replace(element, copied=None, stored=True) for element in found.ravel()]
                found = np.fromiter(whole, object, len(whole)).reshape(found.shape)
            self._elements[value] = found
        return self._elements[value]

    def sized(self, value: ir.Value | None) -> np.ndarray | None:
        """Integers that are computed from static sizes alone; None for others."""
        made = value is not None and value.producer() is not None
        elements = self.elements(value) if made else None
        if value is None or elements is None or not all(element.stored for element in elements.ravel()):
            return None
        array = np.array([element.dim for element in elements.ravel()]).reshape(elements.shape)
        return array.astype(self._dtype(value))

    def _dtype(self, value: ir.Value) -> np.dtype:
        """The type of integers that are computed, where the model does not declare it."""
        node, tensor = value.producer(), constant_tensor(value)
        known = value.dtype if tensor is None else tensor.dtype
        if known is not None:
            return np.dtype(known.numpy())
        if node is None or node.op_type == "Shape":
            return np.dtype(np.int64)
        if node.op_type in sizes.COMPARED:
            return np.dtype(bool)
        if node.op_type == "Cast":
            return np.dtype(ir.DataType(node.attributes["to"].as_int()).numpy())
        if node.op_type == "ConstantOfShape":
            return np.dtype(node.attributes["value"].as_tensor().dtype.numpy())
        typed = node.inputs[1 if node.op_type == "Where" else 0]
        return np.dtype(np.int64) if typed is None else self._dtype(typed)

    def _traced(self, value: ir.Value) -> np.ndarray | None:
        array = self._folded.get(value) if value in self._folded else self.stored(value)
        if array is not None:
            small = array.dtype.kind in "ib" and array.size <= sizes.LARGEST
            return sizes.constants(array) if small else None
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Shape":
            data, shape = node.inputs[0], self.shape(node.inputs[0])
            if data is None or shape is None:
                return None
            axes = [Axis(data, axis) for axis in range(len(shape))]
            found = np.empty(len(shape), object)
            found[:] = [
                sizes.Element(dim, frozenset({axis}), axis) for dim, axis in zip(shape, axes, strict=True)
            ]
            return found[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(shape))]
        if node.op_type not in sizes.FOLLOWED:
            return None
        operands = [self._operand(operand, node) for operand in node.inputs]
        attributes = {
            name: attribute.value.numpy() if attribute.type == ir.AttributeType.TENSOR else attribute.value
            for name, attribute in node.attributes.items()
        }
        return sizes.evaluate(node.op_type, operands, attributes, self.shape(value))

    def _operand(self, value: ir.Value | None, node: ir.Node) -> np.ndarray | None:
        """The elements of an input; where none is known, as many unknown ones as a Concat takes."""
        elements, shape = self.elements(value), self.shape(value)
        if elements is None and node.op_type == "Concat" and shape is not None and isinstance(shape[0], int):
            elements = np.full(min(shape[0], sizes.LARGEST + 1), sizes.Element(None), object)
        return elements

    def learn(self, value: ir.Value, known: np.ma.MaskedArray | None) -> None:
        """Store what a rule knows about a value; elements that are not finite do not count as known."""
        if known is None:
            return
        mask = np.ma.getmaskarray(known)
        if known.dtype.kind == "f":
            mask = mask | ~np.isfinite(known.data)
        if not mask.all():
            self._known[value] = np.ma.array(known.data, mask=mask)

    def folded(self, node: ir.Node) -> bool:
        """Whether a node computes integers (sizes, axes, pads) from constants."""
        return any(value in self._folded for value in node.outputs)

    def along(self, axis: Axis) -> np.ma.MaskedArray:
        """The constant at each position of a static axis; masked where there is none or it varies along other axes."""
        length = self.length(axis)
        assert length is not None
        known = self.known(axis.value)
        if known is None:
            return np.ma.masked_all(length)
        data = np.moveaxis(known.data, axis.dim, 0).reshape(known.shape[axis.dim], -1)
        masks = np.moveaxis(np.ma.getmaskarray(known), axis.dim, 0).reshape(data.shape)
        mask = masks.any(axis=1) | (data != data[:, :1]).any(axis=1)
        return np.ma.array(np.broadcast_to(data[:, 0], length), mask=np.broadcast_to(mask, length))

    def evaluate(self, node: ir.Node, inputs: list[np.ndarray | None]) -> np.ndarray | None:
        """The first output of `node` on these inputs, by onnxruntime; None where it cannot run the node."""
        return evaluate_node(node, inputs, self.model)

    def connections(self, value: ir.Value, out_axis: int, in_axis: int) -> Connections | None:
        """Which inputs each output of a constant weight reads; None where it is not constant."""
        key = (value, out_axis, in_axis)
        if key not in self._connections:
            array = self.present(value)
            if array is None:
                return None
            self._connections[key] = Connections.of(weight_matrix(array, out_axis, in_axis))
        return self._connections[key]

    def present(self, value: ir.Value) -> np.ndarray | None:
        """A constant, false where it is zero: integers of a weight at their zero point; None if it is computed."""
        array = self.constant(value)
        if array is None or array.dtype.kind not in "iu":
            return array
        zero = self.zero(value)
        return np.ones(array.shape, bool) if zero is None else array != zero

    def zero(self, value: ir.Value) -> np.ndarray | None:
        """What stands for 0 in a constant: the zero point of a weight's integers; None where that is not known."""
        tensor, array = constant_tensor(value), self.constant(value)
        if array is None or array.dtype.kind not in "iu":
            return None if array is None else np.zeros((), array.dtype)
        if self._zeros is None:
            weights = find_weights(self.model).all
            self._zeros = {weight.value: weight.encoding.zero for weight in weights if weight.quantized}
        if value not in self._zeros and tensor is not None and tensor.dtype in QUANTIZED_TYPES:
            return None
        return np.asarray(self._zeros.get(value, 0), np.int64)


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        for branch in branches(node):
            yield from _nodes(branch)
        yield node


def _stored_array(value: ir.Value) -> np.ndarray | None:
    tensor = constant_tensor(value)
    return None if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.numpy()


def weight_matrix(array: np.ndarray, out_axis: int, in_axis: int) -> np.ndarray:
    """A weight as (out, in, all other positions); a view unless it is batched."""
    moved = np.moveaxis(array, (out_axis, in_axis), (0, 1))
    return moved.reshape(moved.shape[0], moved.shape[1], -1)

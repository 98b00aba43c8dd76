"""Every prunable weight of a model as one (out, in) matrix view with its nodes, wherever it lives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.slots import UNHANDLED_WEIGHTED, domain_of, slots

FLOAT_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


# What may stand between a weight and its operator: every element stays, or stays zero.
PASSED_THROUGH = frozenset({"Identity", "Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Flatten"})


@dataclass(frozen=True)
class Use:
    """One place where a weight is read: `node.inputs[index]`."""

    node: ir.Node
    index: int


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant operand of an operator in `WEIGHT_SLOTS`; shared by several nodes, it is still one weight.

    `name` is the initializer's name (or the Constant node's output), made unique by `#2`, `#3` where
    subgraphs repeat one. `out_axis` is the axis of output channels or neurons for the first use.
    """

    name: str
    value: ir.Value
    uses: tuple[Use, ...]
    out_axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape.numpy())

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The stored tensor, in its own dtype."""
        tensor = constant_tensor(self.value)
        assert tensor is not None, self.name
        return tensor

    @property
    def op_type(self) -> str:
        return self.uses[0].node.op_type

    @property
    def in_axis(self) -> int:
        """The axis of inputs: the second of a convolution's, else the other of the two that a product has."""
        if "Conv" in self.op_type:
            return 1 - self.out_axis
        rank = len(self.shape)
        return min(max(2 * rank - 3 - self.out_axis, 0), rank - 1)

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(use.node.name or "" for use in self.uses)

    def array(self) -> np.ndarray:
        """The weight's values in their own dtype; read-only, perhaps mapped from the file."""
        return self.tensor.numpy()

    def copy(self) -> np.ndarray:
        """The values in their own dtype, to be changed; read from the file without a mapping beside them."""
        tensor = self.tensor
        if not isinstance(tensor, ir.ExternalTensor):
            return self.array().copy()
        dtype = np.dtype(tensor.dtype.numpy())
        array = np.fromfile(tensor.path, dtype.newbyteorder("<"), self.size, offset=tensor.offset or 0)
        return array.astype(dtype, copy=False).reshape(self.shape)

    def nonzero(self) -> int:
        """Number of elements that are not zero."""
        return int(np.count_nonzero(self.array()))

    def matrix(self, array: np.ndarray | None = None) -> np.ndarray:
        """The weight (or another array of its shape) as an (out, in) view or copy."""
        array = self.array() if array is None else array
        if array.ndim < 2:
            return array.reshape(1, -1)
        return np.moveaxis(array, self.out_axis, 0).reshape(array.shape[self.out_axis], -1)

    def assign(self, array: np.ndarray) -> None:
        """Replace the stored values; the shape must be the weight's, the dtype is cast to the weight's."""
        old = self.tensor
        assert array.shape == self.shape, (self.name, array.shape, self.shape)
        new = np.ascontiguousarray(array.astype(old.dtype.numpy(), copy=False))
        set_constant(self.value, new, old.dtype)


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


def constants_by_name(model: ir.Model) -> dict[str, ir.Value]:
    """Every constant by its name, the first where subgraphs repeat one; weights under the names they are found by."""
    named: dict[str, ir.Value] = {}
    for value in constants(model):
        named.setdefault(value.name or "", value)
    return named | {weight.name: weight.value for weight in find_weights(model).prunable}


def set_constant(value: ir.Value, array: np.ndarray, dtype: ir.DataType) -> None:
    """Put `array` in the place of an initializer's or Constant node's tensor, under the same name."""
    node = value.producer()
    name = value.name if node is None else node.attributes["value"].as_tensor().name
    put_tensor(value, ir.Tensor(array, dtype=dtype, name=name))
    if value.shape is not None or node is None:
        value.shape = ir.Shape(array.shape)


def put_tensor(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Put a tensor of the same shape in the place of an initializer's or Constant node's."""
    node = value.producer()
    if node is not None:
        node.attributes["value"] = ir.AttrTensor("value", tensor)
    else:
        value.const_value = tensor


@dataclass(frozen=True)
class Unprunable:
    """An operand that looks like a weight but stays as it is, and the reason."""

    node: str
    op_type: str
    weight: str
    reason: str


@dataclass(frozen=True)
class Weights:
    """What a model holds: the weights that can be pruned, and what looks like one but cannot."""

    prunable: tuple[Weight, ...]
    unprunable: tuple[Unprunable, ...]


def find_weights(model: ir.Model) -> Weights:
    """Every weight of the operators in `WEIGHT_SLOTS`, subgraphs included, in node order, shared ones once."""
    uses: dict[ir.Value, list[Use]] = {}
    unprunable: list[Unprunable] = []
    for node in model.graph.all_nodes():
        for use, reason in _weight_operands(node):
            value = _source(node.inputs[use.index])
            assert value is not None
            if reason is None:
                uses.setdefault(value, []).append(use)
            else:
                unprunable.append(Unprunable(node.name or "", node.op_type, value.name or "", reason))
    for function in model.functions.values():
        unprunable += _function_weights(function)
    names: dict[str, int] = {}
    prunable = []
    for value, value_uses in uses.items():
        name = value.name or ""
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name}#{names[name]}"
        first = value_uses[0]
        tensor = constant_tensor(value)
        assert tensor is not None
        slot = next(slot for slot in slots(first.node) if slot.input_index == first.index)
        axis = _axis_of_source(first, slot.out_axis(first.node, len(tensor.shape)))
        prunable.append(Weight(unique, value, tuple(value_uses), axis))
    return Weights(tuple(prunable), tuple(unprunable))


def _weight_operands(node: ir.Node) -> Iterator[tuple[Use, str | None]]:
    """Each operand that is or looks like a weight, with the reason why it cannot be pruned, or None."""
    for slot in slots(node):
        if slot.input_index >= len(node.inputs):
            continue
        value = _source(node.inputs[slot.input_index])
        tensor = constant_tensor(value)
        if tensor is None:
            if slot.input_index == 1 and value is not None:
                yield Use(node, slot.input_index), _why_not_constant(value)
        elif tensor.dtype not in FLOAT_TYPES:
            yield Use(node, slot.input_index), f"its type is {tensor.dtype.name}, not a float"
        elif len(tensor.shape) >= 2:
            yield Use(node, slot.input_index), None
    if node.op_type in UNHANDLED_WEIGHTED:
        for index, value in enumerate(node.inputs):
            tensor = constant_tensor(value)
            if tensor is not None and len(tensor.shape) >= 2:
                yield Use(node, index), f"weights of {node.op_type} are left as they are"


def _source(value: ir.Value | None) -> ir.Value | None:
    """The constant behind Transpose, Cast and the like, where there is one; else the value itself."""
    behind = value
    while behind is not None and constant_tensor(behind) is None:
        node = behind.producer()
        if node is None or domain_of(node) or node.op_type not in PASSED_THROUGH:
            return value
        behind = node.inputs[0]
    return value if behind is None else behind


def _axis_of_source(use: Use, axis: int) -> int:
    """The axis of the constant that an axis of the operand is, through each Transpose between them."""
    value = use.node.inputs[use.index]
    while value is not None and constant_tensor(value) is None:
        node = value.producer()
        assert node is not None
        if node.op_type == "Transpose" and "perm" in node.attributes:
            axis = node.attributes["perm"].as_ints()[axis]
        value = node.inputs[0]
        if node.op_type == "Transpose" and "perm" not in node.attributes and value is not None:
            tensor = constant_tensor(_source(value))
            axis = axis if tensor is None else len(tensor.shape) - 1 - axis
    return axis


def _why_not_constant(value: ir.Value) -> str:
    producer = value.producer()
    if producer is None:
        return "its weight is a graph input without a value"
    if producer.op_type == "DequantizeLinear":
        return "its weight is quantized: prune the float model, then quantize"
    return f"its weight is computed in the graph, by {producer.op_type} node {producer.name!r}"


def _function_weights(function: ir.Function) -> Iterator[Unprunable]:
    for node in function.all_nodes():
        for slot in slots(node):
            value = node.inputs[slot.input_index] if slot.input_index < len(node.inputs) else None
            if value is not None and slot.input_index == 1:
                reason = f"it is inside the model-local function {function.name}"
                yield Unprunable(node.name or "", node.op_type, value.name or "", reason)

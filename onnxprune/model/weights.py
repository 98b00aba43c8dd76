"""Every prunable weight of a model as one (out, in) matrix view with its nodes, wherever it lives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.model.encoding import Encoding, along
from onnxprune.model.functions import obstacle
from onnxprune.model.slots import MICROSOFT, UNHANDLED, Integers, WeightSlot, domain_of, slots

FLOAT_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


QUANTIZED_TYPES = (
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.INT16,
    ir.DataType.UINT16,
    ir.DataType.INT4,
    ir.DataType.UINT4,
)

# What may stand between a weight and its operator: every element stays, or stays zero.
QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})
RESHAPING = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})
PASSED_THROUGH = RESHAPING | {"Identity", "Transpose", "Cast"}


@dataclass(frozen=True)
class Use:
    """One place where a weight is read: `node.inputs[index]`."""

    node: ir.Node
    index: int


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant operand of an operator in `WEIGHT_SLOTS`; shared by several nodes, it is still one weight.

    `name` is the initializer's name (or the Constant node's output), made unique by `#2`, `#3` where
    subgraphs repeat one. `out_axis` is the axis of output channels or neurons for the first use. Zero is what its
    nodes take for zero: the zero point of a quantized weight.
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
    def encoding(self) -> Encoding:
        """What the stored numbers stand for, as the graph is now."""
        found = _encoding(self.uses[0], self.value)
        assert isinstance(found, Encoding), (self.name, found)
        return found

    @property
    def quantized(self) -> bool:
        """Whether integers stand for the weight's numbers."""
        return self.tensor.dtype not in FLOAT_TYPES

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
        if not isinstance(tensor, ir.ExternalTensor) or tensor.dtype.bitwidth < 8:
            return self.array().copy()
        dtype = np.dtype(tensor.dtype.numpy())
        array = np.fromfile(tensor.path, dtype.newbyteorder("<"), self.size, offset=tensor.offset or 0)
        return array.astype(dtype, copy=False).reshape(self.shape)

    def numbers(self) -> np.ndarray:
        """What the values stand for: themselves, read-only, or float32 where they are quantized."""
        return self.encoding.decode(self.array())

    def present(self) -> np.ndarray:
        """Which elements are not zero, of the weight's shape, bool."""
        return self.encoding.present(self.array())

    def clear_zeros(self, mask: np.ndarray) -> None:
        """Take what is zero out of a mask (bool, True = kept), in place: of floats without a second mask."""
        if self.quantized:
            mask &= self.present()
        else:
            np.logical_and(mask, self.array(), out=mask)

    def nonzero(self) -> int:
        """Number of elements that are not zero."""
        # Floats are counted without an array of what is zero.
        return int(np.count_nonzero(self.present() if self.quantized else self.array()))

    def matrix(self, array: np.ndarray | None = None) -> np.ndarray:
        """The weight (or another array of its shape) as an (out, in) view or copy."""
        array = self.array() if array is None else array
        if array.ndim < 2:
            return array.reshape(1, -1)
        return np.moveaxis(array, self.out_axis, 0).reshape(array.shape[self.out_axis], -1)

    def channels_last(self, array: np.ndarray) -> np.ndarray:
        """An array of the weight's shape as (rows, inputs): the inputs of one output, at one place of a kernel."""
        return np.moveaxis(array, self.in_axis, -1).reshape(-1, self.shape[self.in_axis])

    def channels_back(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `channels_last`."""
        others = np.delete(self.shape, self.in_axis)
        return np.moveaxis(rows.reshape(*others, -1), -1, self.in_axis)

    def prune(self, cut: np.ndarray) -> None:
        """Make zero, in the model, what is `cut`: bool, of the weight's shape."""
        array = self.copy()
        np.copyto(array, self.encoding.zero, where=cut)
        self.assign(array)

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
                unprunable.append(_unprunable(use, value, reason))
    for function in model.functions.values():
        unprunable += _function_weights(function, model)
    names: dict[str, int] = {}
    prunable = []
    for value, value_uses in uses.items():
        name = value.name or ""
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name}#{names[name]}"
        weight = Weight(unique, value, tuple(value_uses), _out_axis(value_uses[0], value))
        if _zeros_differ(weight):
            unprunable += [
                _unprunable(use, value, "its nodes differ in what they take for zero") for use in value_uses
            ]
        else:
            prunable.append(weight)
    return Weights(tuple(prunable), tuple(unprunable))


def _unprunable(use: Use, value: ir.Value, reason: str) -> Unprunable:
    return Unprunable(use.node.name or "", use.node.op_type, value.name or "", reason)


def _weight_operands(node: ir.Node) -> Iterator[tuple[Use, str | None]]:
    """Each operand that is or looks like a weight, with the reason why it cannot be pruned, or None."""
    uses = [Use(node, slot.input_index) for slot in slots(node) if slot.input_index < len(node.inputs)]
    sources = [_source(node.inputs[use.index]) for use in uses]
    # Where any operand may be the weight, one that is computed is the data of another's.
    weighted = any(use.index == 0 for use in uses) and any(constant_tensor(value) for value in sources)
    for use, value in zip(uses, sources, strict=True):
        tensor = constant_tensor(value)
        if tensor is None:
            if use.index and value is not None and not weighted:
                yield use, _why_not_constant(value)
        elif len(tensor.shape) >= 2:
            assert value is not None
            encoding = _encoding(use, value)
            yield use, encoding if isinstance(encoding, str) else None
    reason = UNHANDLED.get((domain_of(node), node.op_type))
    for index, value in enumerate(node.inputs if reason else ()):
        tensor = constant_tensor(value)
        if tensor is not None and len(tensor.shape) >= 2:
            yield Use(node, index), reason


def _zeros_differ(weight: Weight) -> bool:
    if not weight.quantized or len(weight.uses) == 1:
        return False
    found = [_encoding(use, weight.value) for use in weight.uses]
    zeros = [each.zero for each in found if isinstance(each, Encoding)]
    return any((np.broadcast_to(zero, weight.shape) != zeros[0]).any() for zero in zeros)


def _source(value: ir.Value | None) -> ir.Value | None:
    """The constant behind Transpose, Cast and the like, where there is one; else the value itself."""
    path = _path(value)
    return path[-1].inputs[0] if path else value


def _path(value: ir.Value | None) -> list[ir.Node]:
    """The nodes between an operand and the constant that it is made of, from the operand on; none for any other."""
    path: list[ir.Node] = []
    while value is not None and constant_tensor(value) is None:
        node = value.producer()
        if node is None or not _passes(node):
            return []
        path.append(node)
        value = node.inputs[0]
    return path if value is not None else []


def _passes(node: ir.Node) -> bool:
    domain = domain_of(node)
    return (not domain and node.op_type in PASSED_THROUGH) or (
        domain in ("", MICROSOFT) and node.op_type in QUANTIZING
    )


def _out_axis(use: Use, value: ir.Value) -> int:
    """The axis of the constant that the outputs of its node lie along."""
    tensor = constant_tensor(value)
    assert tensor is not None
    rank = len(tensor.shape)
    return _order(_path(use.node.inputs[use.index]), rank)[_slot(use).out_axis(use.node, rank)]


def _slot(use: Use) -> WeightSlot:
    return next(slot for slot in slots(use.node) if slot.input_index == use.index)


def _order(path: Sequence[ir.Node], rank: int) -> list[int]:
    """The axis of the constant that each axis of the operand is, through each Transpose of the same rank."""
    order = list(range(rank))
    for node in reversed(path):
        if node.op_type == "Transpose":
            perm = node.attributes.get_ints("perm", tuple(reversed(range(rank))))
            if len(perm) == rank:
                order = [order[axis] for axis in perm]
    return order


def _encoding(use: Use, value: ir.Value) -> Encoding | str:
    """What the numbers of a constant stand for where it is used, or why that cannot be told."""
    tensor = constant_tensor(value)
    assert tensor is not None
    if tensor.dtype in FLOAT_TYPES:
        return Encoding(np.zeros((), tensor.dtype.numpy()))
    path, slot = _path(use.node.inputs[use.index]), _slot(use)
    place = next((place for place, node in enumerate(path) if node.op_type == "DequantizeLinear"), None)
    if tensor.dtype not in QUANTIZED_TYPES or (place is None and slot.integers is None):
        return f"its type is {tensor.dtype.name}, which this version does not prune"
    if place is not None:
        return _read_dequantize(tensor, path[place], path[place + 1 :])
    assert slot.integers is not None
    axes = slot.integers.axes or (slot.out_axis(use.node, len(tensor.shape)),)
    return _read(tensor, use.node, replace(slot.integers, axes=axes), path)


def dequantized(value: ir.Value) -> Encoding | None:
    """What a constant stands for that DequantizeLinear nodes read, all in one way; None for any other."""
    tensor = constant_tensor(value)
    readers = [node for node, _ in value.uses()]
    if tensor is None or any(
        node.op_type != "DequantizeLinear" or _parameter(node, 1) is None for node in readers
    ):
        return None
    found = [_read_dequantize(tensor, node, []) for node in readers]
    first = found[0] if found else None
    if not isinstance(first, Encoding) or not all(
        isinstance(each, Encoding) and each.same(first) for each in found
    ):
        return None
    return first


def _read_dequantize(tensor: ir.TensorProtocol, node: ir.Node, path: Sequence[ir.Node]) -> Encoding | str:
    axis = node.attributes.get_int("axis", 1) % max(len(tensor.shape), 1)
    return _read(tensor, node, Integers(1, 2, (axis,)), path, node.attributes.get_int("block_size", 0))


def _read(
    tensor: ir.TensorProtocol, node: ir.Node, integers: Integers, path: Sequence[ir.Node], block: int = 0
) -> Encoding | str:
    """What integers stand for that go through `path` to a node; the last of `path` reads the constant itself."""
    zero, index = _parameter(node, integers.zero_point), integers.zero_point
    if zero is None and index < len(node.inputs) and node.inputs[index] is not None:
        return "its zero point is computed in the graph"
    scale = _multiplier(node.outputs[0]) if integers.scale is None else _parameter(node, integers.scale)
    order = _order(path, len(tensor.shape))
    shape = [tensor.shape.numpy()[axis] for axis in order]
    laid = []
    for parameter in (np.zeros(()) if zero is None else zero, np.ones(()) if scale is None else scale):
        if parameter.size > 1 and any(between.op_type in RESHAPING for between in path):
            return "it is reshaped between the weight and its scales"
        try:
            parameter = along(parameter, shape, integers.axes, block)
        except (ValueError, IndexError):
            return "its scales or zero points do not fit its shape"
        laid.append(parameter.transpose(np.argsort(order)) if parameter.ndim else parameter)
    return Encoding(laid[0].astype(tensor.dtype.numpy()), laid[1].astype(np.float32))


def _parameter(node: ir.Node, index: int) -> np.ndarray | None:
    """A constant operand's array."""
    tensor = constant_tensor(_source(node.inputs[index])) if index < len(node.inputs) else None
    return None if tensor is None else tensor.numpy()


def _multiplier(value: ir.Value) -> np.ndarray | None:
    """The constant scales that multiply a product of integers, alone or times those of the data, (outputs,)."""
    uses = tuple(value.uses())
    if len(uses) != 1:
        return None
    node, index = uses[0]
    if node.op_type == "Cast":
        return _multiplier(node.outputs[0])
    if node.op_type != "Mul":
        return None
    other = node.inputs[1 - index]
    maker = None if other is None else other.producer()
    factors = maker.inputs if maker is not None and maker.op_type == "Mul" else (other,)
    tensor = next((tensor for factor in factors if (tensor := constant_tensor(factor)) is not None), None)
    return None if tensor is None else tensor.numpy().reshape(-1)


def _why_not_constant(value: ir.Value) -> str:
    producer = value.producer()
    if producer is None:
        return "its weight is a graph input without a value"
    return f"its weight is computed in the graph, by {producer.op_type} node {producer.name!r}"


def _function_weights(function: ir.Function, model: ir.Model) -> Iterator[Unprunable]:
    reason, cause = f"it is inside the model-local function {function.name}", obstacle(function, model)
    if cause is not None:
        reason += f", which cannot be inlined, as {cause}: do that by onnx.inliner first"
    for node in function.all_nodes():
        for slot in slots(node):
            value = node.inputs[slot.input_index] if slot.input_index < len(node.inputs) else None
            if value is not None and slot.input_index:
                yield _unprunable(Use(node, slot.input_index), value, reason)

"""How operators read constants: through which nodes, along which axes, and with which encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.encoding import Encoding, along
from onnxprune.model.operands import operand
from onnxprune.model.slots import MICROSOFT, Integers, WeightSlot, domain_of, embedding_slots, slots

FLOAT_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


QUANTIZED_TYPES = (
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.INT16,
    ir.DataType.UINT16,
    ir.DataType.INT4,
    ir.DataType.UINT4,
)

# Operators that may lie between a weight and its operator: they keep every element, or keep it zero.
QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})
RESHAPING = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})
PASSED_THROUGH = RESHAPING | {"Identity", "Transpose", "Cast"}


@dataclass(frozen=True)
class Use:
    """One place where a weight is read: `node.inputs[index]`."""

    node: ir.Node
    index: int


def source(value: ir.Value | None) -> ir.Value | None:
    """The constant behind Transpose, Cast and similar operators, if there is one; else the value itself."""
    path = _path(value)
    return path[-1].inputs[0] if path else value


def _path(value: ir.Value | None) -> list[ir.Node]:
    """The nodes between an operand and the constant that it is made of, from the operand on; else empty."""
    path: list[ir.Node] = []
    while value is not None and constant_tensor(value) is None:
        node = value.producer()
        if node is None or not passes(node):
            return []
        path.append(node)
        value = node.inputs[0]
    return path if value is not None else []


def passes(node: ir.Node) -> bool:
    """Whether a weight is found through this node."""
    domain = domain_of(node)
    return (not domain and node.op_type in PASSED_THROUGH) or (
        domain in ("", MICROSOFT) and node.op_type in QUANTIZING
    )


def out_axis_of(use: Use, value: ir.Value) -> int:
    """The axis of the constant for the outputs of its node."""
    tensor = constant_tensor(value)
    assert tensor is not None
    rank = len(tensor.shape)
    return _order(_path(use.node.inputs[use.index]), rank)[_slot(use).out_axis(use.node, rank)]


def _slot(use: Use) -> WeightSlot:
    candidates = (*slots(use.node), *embedding_slots(use.node))
    return next(slot for slot in candidates if slot.input_index == use.index)


def _order(path: Sequence[ir.Node], rank: int) -> list[int]:
    """The axis of the constant for each axis of the operand, through each Transpose of the same rank."""
    order = list(range(rank))
    for node in reversed(path):
        if node.op_type == "Transpose":
            perm = node.attributes.get_ints("perm", tuple(reversed(range(rank))))
            if len(perm) == rank:
                order = [order[axis] for axis in perm]
    return order


def encoding_of(use: Use, value: ir.Value) -> Encoding | str:
    """The encoding of a constant at one of its uses, or the reason why it is not known."""
    tensor = constant_tensor(value)
    assert tensor is not None
    if tensor.dtype in FLOAT_TYPES:
        return Encoding(np.zeros((), tensor.dtype.numpy()))
    path, slot = _path(use.node.inputs[use.index]), _slot(use)
    place = next((place for place, node in enumerate(path) if node.op_type == "DequantizeLinear"), None)
    if tensor.dtype not in QUANTIZED_TYPES or (place is None and slot.integers is None):
        return f"its type {tensor.dtype.name} is not supported"
    if place is not None:
        return _read_dequantize(tensor, path[place], path[place + 1 :])
    assert slot.integers is not None
    axes = slot.integers.axes or (slot.out_axis(use.node, len(tensor.shape)),)
    return _read(tensor, use.node, replace(slot.integers, axes=axes), path)


def dequantized(value: ir.Value) -> Encoding | None:
    """The encoding of integers that only DequantizeLinear nodes read, all with the same encoding; else None."""
    tensor = constant_tensor(value)
    readers = [node for node, _ in value.uses()]
    # Biases have more bits than weights.
    if tensor is None or tensor.dtype not in (*QUANTIZED_TYPES, ir.DataType.INT32):
        return None
    if any(node.op_type != "DequantizeLinear" or _parameter(node, 1) is None for node in readers):
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
    """The encoding of integers that reach a node through `path`; the last node of `path` reads the constant."""
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
    """The array of a constant operand; None if it is not constant."""
    tensor = constant_tensor(source(operand(node, index)))
    return None if tensor is None else tensor.numpy()


def _multiplier(value: ir.Value) -> np.ndarray | None:
    """The constant scales (outputs,) that multiply a product of integers, alone or together with those of the data."""
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

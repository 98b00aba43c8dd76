"""Operators between quantized values: QLinearAdd, QLinearConcat, ..., and the constants of these and of QLinearConv.

    y = yz + round(f((x - xz) * xs, ...) / ys)

A channel of zeros is at the zero point. Other constants are computed by running the node on them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.encoding import on_axis
from onnxprune.model.slots import MICROSOFT
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes, couple_broadcast, freeze_unknown
from onnxprune.surgery.rules.convolution import filters_of, groups_of, padded, static_channels
from onnxprune.surgery.rules.joining import couple_parts, joined_constants
from onnxprune.surgery.rules.matmul import product_of
from onnxprune.surgery.rules.normalization import unmixed
from onnxprune.surgery.rules.scales import only_number
from onnxprune.surgery.tables import Axis, Claim, Coupling, passes_channels, passes_constants

# The inputs that are operands; the others are their scales and zero points.
ELEMENTWISE = {
    "QLinearAdd": (0, 3),
    "QLinearLeakyRelu": (0,),
    "QLinearMul": (0, 3),
    "QLinearSigmoid": (0,),
    "QLinearWhere": (0, 1, 4),
}
FACTORS = {"QLinearMul": ((0, 2), (3, 5))}  # operands and their zero points
POOLS = ("QLinearAveragePool", "QLinearGlobalAveragePool")
# QLinearConcat has the scale and zero point of its output in front, and those of each part behind it.
PARTS = 2
ZERO = 2  # how far behind an operand its zero point is
OUTPUT_ZERO = {"QLinearMatMul": 7, "QLinearMul": 7, **dict.fromkeys(POOLS, 4)}
ONE_AXIS = 13  # the opset since which Softmax mixes one axis alone


@passes_channels(*ELEMENTWISE, domain=MICROSOFT)
def elementwise(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple each axis of every operand with the output axis that it is broadcast to."""
    operands = [node.inputs[index] for index in ELEMENTWISE[node.op_type]]
    yield from freeze_unknown(operands, node.outputs[0], facts)
    for value in operands:
        yield from couple_broadcast(value, node.outputs[0], facts)


@passes_channels("QLinearSoftmax", domain=MICROSOFT)
def softmax(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple every axis that is not normalized over; `opset` is that of the Softmax which it was made of."""
    yield from unmixed(node, node.attributes.get_int("opset", 0) >= ONE_AXIS, facts)


@passes_channels(*POOLS, domain=MICROSOFT)
def pool(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple batch and channels."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    if data is not None and shape is not None:
        yield from couple_axes(data, node.outputs[0], (0, _channel_axis(node, len(shape))), facts)


@passes_channels("QLinearConcat", domain=MICROSOFT)
def concat(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple each part with its place in the output."""
    yield from couple_parts(node, node.outputs[0], _parts(node), facts)


@passes_constants(*ELEMENTWISE, domain=MICROSOFT)
def elementwise_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Run the node on the known elements; where one factor is zero, the other does not matter."""
    places = ELEMENTWISE[node.op_type]
    known = {place: facts.known(node.inputs[place]) for place in places}
    if all(array is not None for array in known.values()):
        arrays = [array for array in known.values() if array is not None]
        result = _run(
            node, {place: array.filled(0) for place, array in zip(places, arrays, strict=True)}, facts
        )
        masks = np.broadcast_arrays(*map(np.ma.getmaskarray, arrays))
        return None if result is None else np.ma.array(result, mask=np.logical_or.reduce(masks))
    for place, zero_place in FACTORS.get(node.op_type, ()):
        factor, zero = known[place], only_number(node.inputs[zero_place], facts)
        other = next(value for index, value in known.items() if index != place)
        shape = facts.shape(node.outputs[0])
        if factor is None or other is not None or zero is None or shape is None:
            continue
        mask = np.ma.getmaskarray(factor) | (factor.data != zero)
        return _zeros(node, mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape), facts)
    return None


@passes_constants("QLinearConcat", domain=MICROSOFT)
def concat_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The known elements of all parts, in the steps of the output."""
    shape = facts.shape(node.outputs[0])
    if shape is None:
        return None
    axis = node.attributes.get_int("axis", 0) % len(shape)
    joined = joined_constants(_parts(node), axis, facts)
    if joined is None:
        return None
    ends = np.cumsum([facts.length(Axis(value, axis)) for value in _parts(node)])[:-1]
    split = np.split(joined.filled(0), ends, axis=axis)
    places = range(PARTS, len(node.inputs), 3)
    result = _run(node, dict(zip(places, split, strict=True)), facts)
    return None if result is None else np.ma.array(result, mask=np.ma.getmaskarray(joined))


@passes_constants(*POOLS, domain=MICROSOFT)
def pool_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Run the node on the known channels, where they are as large as they will be; a channel of zeros stays one."""
    known, shape = facts.known(node.inputs[0]), facts.shape(node.inputs[0])
    zero = only_number(node.inputs[ZERO], facts)
    if known is None or shape is None or zero is None:
        return None
    channel = _channel_axis(node, len(shape))
    space = tuple(axis for axis in range(1, len(shape)) if axis != channel)
    varies = np.ma.getmaskarray(known).any(axis=space, keepdims=True)
    full = [size if axis in space else known.shape[axis] for axis, size in enumerate(shape)]
    if not all(isinstance(size, int) for size in full):
        return _zeros(node, varies | (known.data != zero).any(axis=space, keepdims=True), facts)
    result = _run(node, {0: np.broadcast_to(known.filled(0), full)}, facts)  # type: ignore[arg-type]
    if result is None:
        return None
    first = result[tuple(slice(1) if axis in space else slice(None) for axis in range(len(shape)))]
    return np.ma.array(first, mask=varies | (result != first).any(axis=space, keepdims=True))


@passes_constants("QLinearConv")
def conv_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """A filter that reads only constants is constant; with padding, only one that reads zeros."""
    data, weight = node.inputs[0], filters_of(node)
    if data is None or weight is None or not static_channels(node, facts):
        return None
    zero, connections = only_number(node.inputs[2], facts), facts.connections(weight, 0, 1)
    kernel = (facts.shape(weight) or ())[2:]
    if zero is None or connections is None or not all(isinstance(size, int) for size in kernel):
        return None
    constants = facts.along(Axis(data, 1))
    varies = np.ma.getmaskarray(constants)
    if padded(node):
        varies = varies | (constants.filled(0) != zero)
    mask = connections.readers(varies.reshape(groups_of(node), -1))
    if mask.all():
        return None
    dilations = node.attributes.get_ints("dilations", ()) or (1,) * len(kernel)
    window = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]  # type: ignore[operator]
    filled = np.where(varies, zero, constants.filled(0))
    ones = (1,) * len(window)
    image = np.broadcast_to(filled.reshape(1, -1, *ones), (1, len(filled), *window))
    result = _run(node, {0: image}, facts)
    if result is None:
        return None
    return on_axis(np.ma.array(result.reshape(len(mask), -1)[:, 0], mask=mask), 1, len(window) + 2)


@passes_constants("QLinearMatMul")
@passes_constants("QGemm", domain=MICROSOFT)
def product_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Units whose weights read only constants; and zeros where a column of a computed operand is zero."""
    product = product_of(node, facts)
    read = None if product is None else product.contraction
    if read is None or read.out is None or read.weight_out is None:
        return None
    rank = facts.rank(read.out.value)
    connections = facts.connections(read.weight.value, read.weight_out.dim, read.weight.dim)
    if connections is None:
        columns = facts.known(read.weight.value)
        if columns is None or columns.ndim != rank or read.weight_zero is None or node.op_type == "QGemm":
            return None
        varies = np.ma.getmaskarray(columns) | (columns.data != read.weight_zero)
        return _zeros(node, varies.any(-2, keepdims=True), facts)
    constants = facts.along(read.data)
    varies = np.ma.getmaskarray(constants)
    mask = connections.readers(varies[np.newaxis])
    if mask.all() or facts.rank(read.weight.value) > 2:
        return None
    place = next(index for index, value in enumerate(node.inputs) if value is read.data.value)
    transposed = read.data.dim != facts.rank(read.data.value) - 1
    result = _run(node, {place: constants.filled(0).reshape((-1, 1) if transposed else (1, -1))}, facts)
    if result is None or result.size != len(mask):
        return None
    return on_axis(np.ma.array(result.reshape(-1), mask=mask), read.out.dim, rank)


def _parts(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs[PARTS::3] if value is not None]


def _channel_axis(node: ir.Node, rank: int) -> int:
    return rank - 1 if node.attributes.get_int("channels_last", 0) else 1


def _run(node: ir.Node, operands: dict[int, np.ndarray], facts: Facts) -> np.ndarray | None:
    """The output for these operands, by index, and constants for all other inputs; None where one is computed."""
    arrays = [facts.constant(value) for value in node.inputs]
    for place, array in operands.items():
        # A condition has no zero point.
        zero = arrays[place + ZERO] if array.dtype != bool else array
        if zero is None:
            return None
        arrays[place] = np.ascontiguousarray(array, zero.dtype)
    if any(array is None for array, value in zip(arrays, node.inputs, strict=True) if value is not None):
        return None
    return facts.evaluate(node, arrays)


def _zeros(node: ir.Node, mask: np.ndarray, facts: Facts) -> np.ma.MaskedArray | None:
    """What stands for 0 in the output, where the mask is False."""
    value = node.inputs[OUTPUT_ZERO[node.op_type]]
    zero = facts.constant(value)
    if value is None or zero is None:
        return None
    return np.ma.array(np.broadcast_to(zero.reshape(()), mask.shape), mask=mask)

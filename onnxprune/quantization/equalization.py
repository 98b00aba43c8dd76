"""Layer ∘ Relu ∘ Layer -> Layer' ∘ Relu ∘ Layer', with scales between them that make the ranges of channels alike.

What passes a positive factor of each channel on (Relu, Add, pooling) connects the layers that write channels and those
that read them: convolutions, depthwise ones included, and Gemm. The weights and the bias that write a channel are
divided by its factor, and those that read it multiplied: the function is unchanged, and zeros stay zeros (Nagel et al.
2019, arXiv 1906.04721). Each output channel of a weight has a scale of its own here, so it is the ranges of the
activations, which share one, that become more alike; the paper makes those of weights alike.

Clip(0, c) passes the factor s of a channel on only while it clips neither x nor x / s. So a channel that comes near c
on the inputs is left as it is, and others grow to at most a part of c: the function is unchanged on all that stays
within a multiple of the ranges that were measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.model.encoding import on_axis
from onnxprune.model.shapes.inference import Shape
from onnxprune.model.slots import domain_of

# f(s * x) = s * f(x) for positive s of each channel, of the first input.
PASSING = frozenset(
    {
        "Relu",
        "LeakyRelu",
        "Identity",
        "Dropout",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
    }
)
# Of any number of inputs, all of them scaled alike.
SUMS = frozenset({"Add", "Sum"})
# Activations that the quantizer takes into the layer before them, so that what they read is not rounded.
JOINED = frozenset({"Relu", "Clip"})
# A channel behind Clip may become so many times larger than on the inputs before it is clipped.
MARGIN = 2.0
# Channels whose range is smaller than this part of the largest are scaled as if it were so large.
LEAST_RANGE = 1e-3


@dataclass
class Region:
    """Values whose channels are scaled together: `writers` make them, `readers` read them."""

    values: list[ir.Value] = field(default_factory=list)
    writers: list[ir.Node] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)
    clipped: list[tuple[ir.Value, float]] = field(default_factory=list)
    """What a Clip(0, c) gives, and c."""
    blocked: bool = False

    def rounded(self) -> list[ir.Value]:
        """The values that are rounded."""
        return [
            value
            for value in self.values
            if any(node.op_type not in JOINED for node, _ in value.uses()) or value.is_graph_output()
        ]


def regions(model: ir.Model, shapes: Mapping[ir.Value, Shape]) -> list[Region]:
    """The regions of a model's main graph whose channels can be scaled."""
    found: dict[ir.Value, Region] = {}
    for node in model.graph:
        operands = [value for value in node.inputs if value is not None and constant_tensor(value) is None]
        if _layer(node):
            _region(found, operands[:1]).readers.append(node)
            _region(found, node.outputs).writers.append(node)
        elif _passes(node, operands, shapes):
            region = _region(found, (*operands, node.outputs[0]))
            if (limit := _limit(node)) is not None:
                region.clipped.append((node.outputs[0], limit))
        else:
            for value in (*operands, *node.outputs):
                _region(found, (value,)).blocked = True
    for value, region in found.items():
        inside = value.producer() is not None and value.producer() in model.graph
        if (
            not inside
            or value.is_graph_output()
            or any(node.graph is not model.graph for node, _ in value.uses())
        ):
            region.blocked = True
    distinct = {id(region): region for region in found.values()}.values()
    return [region for region in distinct if not region.blocked and region.writers and region.readers]


def equalize(region: Region, largest: Mapping[ir.Value, np.ndarray]) -> bool:
    """Scale a region in place; `largest`: the largest magnitudes (channels,) of its values. Whether it changed."""
    used = np.max([largest[value] for value in region.rounded()], axis=0).astype(np.float64)
    channels = {_writes(node) for node in region.writers} | {_reads(node) for node in region.readers}
    if channels != {len(used)} or not np.isfinite(used).all() or not used.any():
        return False
    ranges = np.maximum(used, LEAST_RANGE * used.max())
    columns = np.zeros(len(used))
    for node in region.readers:
        if not _is_depthwise(node):
            columns = np.maximum(columns, _columns(node))
    # Only depthwise layers read it: their weights have a scale for each channel anyway.
    scales = np.sqrt(ranges / np.maximum(columns, LEAST_RANGE * columns.max())) if columns.any() else ranges
    scales = scales / (scales.max() if region.clipped else np.exp(np.log(scales[used > 0]).mean()))
    for value, limit in region.clipped:
        least = MARGIN * largest[value] / limit
        scales = np.where(least < 1, np.maximum(scales, least), 1.0)
    scales = np.where(used > 0, scales, 1.0)
    for node in region.writers:
        _scale(node.inputs[1], 1 / scales, _out_axis(node))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            _scale(node.inputs[2], 1 / scales, -1)
    for node in region.readers:
        _scale_inputs(node, scales)
    return bool((scales != 1).any())


def _region(found: dict[ir.Value, Region], values: Iterable[ir.Value]) -> Region:
    """The one region of some values: theirs joined."""
    given = list(values)
    joined = Region()
    for value in given:
        old = found.get(value) or Region([value])
        if old is joined:
            continue
        joined.values += old.values
        joined.writers += old.writers
        joined.readers += old.readers
        joined.clipped += old.clipped
        joined.blocked |= old.blocked
        for each in old.values:
            found[each] = joined
    return joined


def _layer(node: ir.Node) -> bool:
    """Whether a node is a convolution or a Gemm with constants of its own."""
    transposed = node.attributes.get_int("transA", 0)
    if domain_of(node) or node.op_type not in ("Conv", "Gemm") or transposed:
        return False
    constants = [value for value in node.inputs[1:] if value is not None]
    return (
        constant_tensor(node.inputs[0]) is None
        and len(constants) >= 1
        and all(_is_own(value) for value in constants)
        and all(_is_vector(value, _writes(node)) for value in constants[1:])
        and _groups(node) in (1, _writes(node))
    )


def _is_own(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(value.uses()) == 1


def _is_vector(value: ir.Value, size: int) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tuple(tensor.shape.numpy()) == (size,)


def _passes(node: ir.Node, operands: list[ir.Value], shapes: Mapping[ir.Value, Shape]) -> bool:
    if domain_of(node) or not operands:
        return False
    if node.op_type in PASSING or _limit(node) is not None:
        return operands[0] is node.inputs[0]
    if node.op_type not in SUMS or len(operands) != len(node.inputs):
        return False
    found = [shapes.get(value) for value in operands]
    sizes = {(len(shape), shape[1]) for shape in found if shape is not None and len(shape) > 1}
    return len(sizes) == 1 and all(shape is not None and len(shape) > 1 for shape in found)


def _limit(node: ir.Node) -> float | None:
    """The number that a Clip from 0 clips at."""
    if domain_of(node) or node.op_type != "Clip":
        return None
    ends = [node.attributes.get_float(name, math.nan) for name in ("min", "max")]
    for place, value in enumerate(node.inputs[1:3]):
        tensor = constant_tensor(value)
        ends[place] = math.nan if tensor is None or tensor.size != 1 else float(tensor.numpy().reshape(()))
    return ends[1] if ends[0] == 0 and ends[1] > 0 and math.isfinite(ends[1]) else None


def _weight(node: ir.Node) -> np.ndarray:
    tensor = constant_tensor(node.inputs[1])
    assert tensor is not None
    return tensor.numpy()


def _out_axis(node: ir.Node) -> int:
    transposed = node.attributes.get_int("transB", 0)
    return int(node.op_type == "Gemm" and not transposed)


def _writes(node: ir.Node) -> int:
    return int(_weight(node).shape[_out_axis(node)])


def _reads(node: ir.Node) -> int:
    return _writes(node) if _is_depthwise(node) else int(_weight(node).shape[1 - _out_axis(node)])


def _groups(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def _is_depthwise(node: ir.Node) -> bool:
    return _groups(node) > 1


def _columns(node: ir.Node) -> np.ndarray:
    """The largest magnitude of the weights that read each channel."""
    weight = np.moveaxis(_weight(node), 1 - _out_axis(node), 0)
    return np.abs(weight.reshape(len(weight), -1)).max(1).astype(np.float64)


def _scale_inputs(node: ir.Node, scales: np.ndarray) -> None:
    _scale(node.inputs[1], scales, 0 if _is_depthwise(node) else 1 - _out_axis(node))


def _scale(value: ir.Value | None, factors: np.ndarray, axis: int) -> None:
    tensor = constant_tensor(value)
    assert value is not None and tensor is not None
    array = tensor.numpy()
    across = on_axis(factors, axis, array.ndim)
    set_constant(value, (array * across).astype(array.dtype), tensor.dtype)

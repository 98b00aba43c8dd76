"""Operators that move elements without changing them: Reshape, Flatten, Transpose, Squeeze, Unsqueeze.

Flattening (N, C, H, W) to (N, C*H*W) makes channel c the run of columns c*H*W ... (c+1)*H*W - 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.constants import replace_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.segments import Segment, match_segments, reshape_known
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Coupling,
    OneOf,
    SizeOf,
    passes_channels,
    passes_constants,
    rewrites,
)

INFERRED = -1
PICK = ("Cast", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze")


@passes_channels("Flatten", "Squeeze", "Unsqueeze", "Reshape")
def reshape(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Axes that stay whole one to one; of axes that merge or split, any one with the run of positions it makes."""
    data, out = node.inputs[0], node.outputs[0]
    shape = facts.shape(data)
    segments = _segments(node, facts)
    if data is None or shape is None or segments is None:
        return
    fixed = _fixed_axes(node, facts)
    out_shape = facts.shape(out)
    assert out_shape is not None
    for segment in segments:
        if any(axis in fixed for axis in segment.right):
            continue
        left = [axis for axis in segment.left if shape[axis] != 1]
        right = [axis for axis in segment.right if out_shape[axis] != 1]
        if not left or not all(isinstance(shape[axis], int) for axis in left):
            continue
        if len(left) == len(right) == 1:
            yield Coupling(Axis(data, left[0]), Axis(out, right[0]))
        elif len(right) == 1:
            yield _merge(data, shape, left, Axis(out, right[0]))
        elif len(left) == 1:
            yield _merge(out, out_shape, right, Axis(data, left[0]))


@passes_constants("Flatten", "Squeeze", "Unsqueeze", "Reshape")
def reshape_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The same elements in the other shape."""
    known, segments = facts.known(node.inputs[0]), _segments(node, facts)
    shape, out_shape = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if known is None or segments is None or shape is None or out_shape is None:
        return None
    return reshape_known(known, segments, shape, out_shape)


@rewrites("Reshape")
def reshape_target(node: ir.Node, facts: Facts, size_of: SizeOf) -> None:
    """The sizes of the axes that shrank, where the target names them."""
    out = node.outputs[0]
    stored, shape = facts.constant(node.inputs[1]), facts.shape(out)
    if stored is None or shape is None:
        return
    target = stored.copy()
    sizes = [size_of(Axis(out, axis))[1] if isinstance(dim, int) else None for axis, dim in enumerate(shape)]
    for axis, size in enumerate(sizes):
        if size is not None and target[axis] != INFERRED:
            target[axis] = size
    if not np.array_equal(target, stored):
        replace_operand(node, 1, target, ir.DataType.INT64)


@passes_channels("Transpose")
def transpose(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Output axis i with input axis perm[i]."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    if data is not None and shape is not None:
        for out_axis, axis in enumerate(_permutation(node, len(shape))):
            if isinstance(shape[axis], int):
                yield Coupling(Axis(data, axis), Axis(node.outputs[0], out_axis))


@passes_constants("Transpose")
def transpose_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The same elements, axes permuted."""
    known = facts.known(node.inputs[0])
    return None if known is None else known.transpose(_permutation(node, known.ndim))


@passes_channels("Shape")
def shape_of(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Axes whose size nothing asks for: of Shape(x)[0], all but the batch."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    if data is None or shape is None:
        return
    end = node.attributes.get_int("end", len(shape))
    asked = np.arange(len(shape))[node.attributes.get_int("start", 0) : end]
    read = _elements_read(node.outputs[0], asked, facts)
    yield from (
        Coupling(Axis(data, axis), Axis(data, axis)) for axis in range(len(shape)) if axis not in read
    )


def _elements_read(value: ir.Value, elements: np.ndarray, facts: Facts) -> set[int]:
    """Which of `elements` a value still holds where something other than picking among them reads it."""
    read: set[int] = set()
    if value.is_graph_output():
        read.update(elements.ravel().tolist())
    for use in value.uses():
        others = [facts.constant(operand) for operand in use.node.inputs[1:]]
        picked = None
        if use.node.op_type in PICK and use.idx == 0 and all(other is not None for other in others):
            picked = facts.evaluate(use.node, [elements, *others])
        if picked is None:
            read.update(elements.ravel().tolist())
        else:
            read |= _elements_read(use.node.outputs[0], picked, facts)
    return read


def _permutation(node: ir.Node, rank: int) -> tuple[int, ...]:
    return tuple(node.attributes.get_ints("perm", ())) or tuple(reversed(range(rank)))


def _segments(node: ir.Node, facts: Facts) -> tuple[Segment, ...] | None:
    shape, out_shape = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    return None if shape is None or out_shape is None else match_segments(shape, out_shape)


def _merge(many: ir.Value, shape: tuple, axes: list[int], one: Axis) -> OneOf:
    """Each of `axes`, its position being a coordinate of the flattened position on `one`."""
    lengths = [shape[axis] for axis in axes]
    positions = np.arange(int(np.prod(lengths)))
    coordinates = np.unravel_index(positions, lengths)
    return OneOf(
        tuple(
            Coupling(Axis(many, axis), one, coordinate, positions)
            for axis, coordinate in zip(axes, coordinates, strict=True)
        )
    )


def _fixed_axes(node: ir.Node, facts: Facts) -> set[int]:
    """Axes of a Reshape's output whose size is computed in the graph, so that it cannot be rewritten."""
    if node.op_type != "Reshape" or facts.constant(node.inputs[1]) is not None:
        return set()
    out_shape = facts.shape(node.outputs[0])
    target = node.inputs[1].producer() if node.inputs[1] is not None else None
    axes = set(range(len(out_shape or ())))
    while target is not None and target.op_type == "Cast":
        target = target.inputs[0].producer() if target.inputs[0] is not None else None
    if target is None or target.op_type != "Concat":
        return axes
    place = 0
    for part in target.inputs:
        shape, array = facts.shape(part), facts.constant(part)
        if shape is None or len(shape) != 1 or not isinstance(shape[0], int):
            return axes
        if array is not None:
            axes -= {place + offset for offset in np.flatnonzero(array == INFERRED)}
        place += shape[0]
    return axes

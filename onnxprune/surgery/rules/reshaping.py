"""Operators that move elements without changing them: Reshape, Flatten, Transpose, Squeeze, Unsqueeze.

Flattening (N, C, H, W) to (N, C*H*W) makes channel c the run of columns c*H*W ... (c+1)*H*W - 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.dims import changeable, follow_sizes, set_size, sizes_read
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.segments import Factor, Segment, common_factors, match_segments, reshape_known
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Coupling,
    Kept,
    OneOf,
    passes_channels,
    passes_constants,
    rewrites,
)

INFERRED = -1


@passes_channels("Flatten", "Squeeze", "Unsqueeze", "Reshape")
def reshape(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple unchanged axes one to one; of axes that are merged or split, one factor can be pruned."""
    data, out = node.inputs[0], node.outputs[0]
    shape, out_shape = facts.shape(data), facts.shape(out)
    segments = _segments(node, facts)
    if data is None or shape is None or out_shape is None or segments is None:
        return
    fixed = _fixed_axes(node, facts)
    passed: set[int] = set()
    for segment in segments:
        left = [axis for axis in segment.left if shape[axis] != 1]
        right = [axis for axis in segment.right if out_shape[axis] != 1]
        if len(left) == len(right) == 1:
            static = isinstance(shape[left[0]], int) and right[0] not in fixed
            couplings = [Coupling(Axis(data, left[0]), Axis(out, right[0]))] if static else []
            yield from couplings
        else:
            factors = common_factors(segment, shape, out_shape)
            couplings = [_along(factor, data, out) for factor in factors if factor.right not in fixed]
            if couplings:
                yield OneOf(tuple((coupling,) for coupling in couplings))
        passed.update(coupling.right.dim for coupling in couplings)
    if node.op_type == "Reshape":
        yield from follow_sizes(node, node.inputs[1], facts, passed)


@passes_constants("Flatten", "Squeeze", "Unsqueeze", "Reshape")
def reshape_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The same elements in the other shape."""
    known, segments = facts.known(node.inputs[0]), _segments(node, facts)
    shape, out_shape = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if known is None or segments is None or shape is None or out_shape is None:
        return None
    return reshape_known(known, segments, shape, out_shape)


@rewrites("Reshape")
def reshape_target(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the sizes of axes that shrank, where the target is a number."""
    data, out = node.inputs[0], node.outputs[0]
    elements, shape = facts.elements(node.inputs[1]), facts.shape(out)
    if elements is None or shape is None or data is None:
        return
    for axis, element in enumerate(elements):
        kept = kept_of(Axis(out, axis))
        if kept.all() or element.dim == INFERRED or not element.stored:
            continue
        if element.dim or int(kept_of(Axis(data, axis)).sum()) != int(kept.sum()):
            set_size(node, 1, axis, int(kept.sum()), facts)


@passes_channels("Transpose")
def transpose(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple output axis i with input axis perm[i]."""
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
def shape_of(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Free axes whose size is not used, or only where it can follow a change (see dims.py)."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    if data is None or shape is None:
        return
    read = sizes_read(node.outputs[0], facts)
    for axis in range(len(shape)):
        if Axis(data, axis) not in read:
            yield Coupling(Axis(data, axis), Axis(data, axis))


def _permutation(node: ir.Node, rank: int) -> tuple[int, ...]:
    return tuple(node.attributes.get_ints("perm", ())) or tuple(reversed(range(rank)))


def _segments(node: ir.Node, facts: Facts) -> tuple[Segment, ...] | None:
    shape, out_shape = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    return None if shape is None or out_shape is None else match_segments(shape, out_shape)


def _along(factor: Factor, data: ir.Value, out: ir.Value) -> Coupling:
    """Couple all positions of both axes with the same coordinate along the factor."""
    left, right = factor.left_coordinate, factor.right_coordinate
    first_left, first_right = np.unique(left, return_index=True)[1], np.unique(right, return_index=True)[1]
    return Coupling(
        Axis(data, factor.left),
        Axis(out, factor.right),
        np.concatenate([np.arange(len(left)), first_left[right]]),
        np.concatenate([first_right[left], np.arange(len(right))]),
    )


def _fixed_axes(node: ir.Node, facts: Facts) -> set[int]:
    """Axes of a Reshape's output whose size is computed in the graph and cannot be changed."""
    if node.op_type != "Reshape":
        return set()
    elements = facts.elements(node.inputs[1])
    if elements is None:
        return set(range(len(facts.shape(node.outputs[0]) or ())))
    return {axis for axis, element in enumerate(elements) if not changeable(element)}

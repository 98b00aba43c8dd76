"""Concat and Split: positions are shifted by the widths of the parts before; other axes are coupled one to one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.constants import replace_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes, freeze_unknown
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Coupling,
    Kept,
    passes_channels,
    passes_constants,
    rewrites,
)

SIZES_AS_INPUT = 13  # opset since which Split's sizes are an input
NUM_OUTPUTS = 18  # opset since which an even Split names the number of its outputs


@passes_channels("Concat")
def concat(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple each input with its part of the output."""
    yield from couple_parts(
        node, node.outputs[0], [value for value in node.inputs if value is not None], facts
    )


@passes_channels("Split")
def split(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple each output with its part of the input."""
    if node.inputs[0] is not None:
        yield from couple_parts(node, node.inputs[0], list(node.outputs), facts)


@passes_constants("Concat")
def concat_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The known elements of all inputs, concatenated."""
    shape = facts.shape(node.outputs[0])
    if shape is None:
        return None
    return joined_constants(node.inputs, node.attributes.get_int("axis", 0) % len(shape), facts)


def joined_constants(values: Sequence[ir.Value | None], axis: int, facts: Facts) -> np.ma.MaskedArray | None:
    """The known elements of values along a static axis, concatenated; None if there are none."""
    parts, dtype = [], None
    for value in values:
        known, length = facts.known(value), facts.length(Axis(value, axis)) if value is not None else None
        if length is None:
            return None
        parts.append((known, length))
        dtype = dtype if known is None else known.dtype
    if dtype is None:
        return None
    others = np.broadcast_shapes(*(_without(known.shape, axis) for known, _ in parts if known is not None))
    full = [_spread(known, (*others[:axis], length, *others[axis:]), dtype) for known, length in parts]
    return np.ma.concatenate(full, axis=axis)


@passes_constants("Split")
def split_constants(node: ir.Node, facts: Facts) -> list[np.ma.MaskedArray] | None:
    """The known elements of each part."""
    known, shape = facts.known(node.inputs[0]), facts.shape(node.inputs[0])
    if known is None or shape is None:
        return None
    axis = node.attributes.get_int("axis", 0) % len(shape)
    lengths = [facts.length(Axis(value, axis)) for value in node.outputs]
    if any(length is None for length in lengths):
        return None
    if known.shape[axis] == 1 != shape[axis]:
        return [known] * len(lengths)
    ends = list(accumulate(length for length in lengths if length is not None))
    before = (slice(None),) * axis
    return [known[(*before, slice(start, end))] for start, end in pairwise([0, *ends])]


@rewrites("Split")
def split_sizes(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the sizes; they become explicit if they are no longer equal."""
    axis = node.attributes.get_int("axis", 0) % facts.rank(node.outputs[0])
    kept = [kept_of(Axis(value, axis)) for value in node.outputs]
    if all(part.all() for part in kept):
        return
    sizes = np.array([part.sum() for part in kept], np.int64)
    even = len(set(sizes.tolist())) == 1
    named = node.attributes.get("split") is not None or (len(node.inputs) > 1 and node.inputs[1] is not None)
    if even and not named:
        return
    if facts.opset < SIZES_AS_INPUT:
        node.attributes["split"] = ir.AttrInt64s("split", sizes.tolist())
        return
    node.attributes.pop("num_outputs", None)
    replace_operand(node, 1, sizes, ir.DataType.INT64)


def couple_parts(node: ir.Node, whole: ir.Value, parts: list[ir.Value], facts: Facts) -> Iterator[Claim]:
    """Couple each part with its run of positions along the node's axis of the whole."""
    shape = facts.shape(whole)
    if shape is None:
        return
    axis = node.attributes.get_int("axis", 0) % len(shape)
    yield from freeze_unknown(parts, whole, facts)
    for part in parts:
        yield from couple_axes(part, whole, [other for other in range(len(shape)) if other != axis], facts)
    lengths = [facts.length(Axis(part, axis)) for part in parts]
    if any(length is None for length in lengths) or sum(filter(None, lengths)) != shape[axis]:
        return
    ends = list(accumulate(length for length in lengths if length is not None))
    for part, end in zip(parts, ends, strict=True):
        length = facts.length(Axis(part, axis)) or 0
        yield Coupling(Axis(part, axis), Axis(whole, axis), np.arange(length), np.arange(end - length, end))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _spread(known: np.ma.MaskedArray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ma.MaskedArray:
    if known is None:
        return np.ma.masked_all(shape, dtype)
    mask = np.broadcast_to(np.ma.getmaskarray(known), shape)
    return np.ma.array(np.broadcast_to(known.data, shape), mask=mask)

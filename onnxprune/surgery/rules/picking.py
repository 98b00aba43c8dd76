"""Operators that select, pad or repeat positions of an axis, given by constants: Slice, Gather, Pad, Expand, Tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.operands import operand
from onnxprune.surgery.constants import replace_operand
from onnxprune.surgery.dims import changeable, follow_sizes, set_size
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes, couple_broadcast
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Coupling,
    Kept,
    passes_channels,
    passes_constants,
    rewrites,
)

PADS_AS_INPUT = 11  # opset since which Pad's widths are an input


@passes_channels("Slice")
def slice_run(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple a slice of step 1 with its source positions; axes that are not sliced are coupled one to one."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    slices = slices_of(node, facts)
    if data is None or shape is None or slices is None:
        return
    out = node.outputs[0]
    yield from couple_axes(data, out, [axis for axis in range(len(shape)) if axis not in slices], facts)
    for axis, (start, end, step) in slices.items():
        run = np.arange(start, end, step)
        if facts.length(Axis(out, axis)) == len(run) and (step == 1 or len(run) == shape[axis]):
            yield _picked(Axis(data, axis), Axis(out, axis), run)


@passes_constants("Slice", "Gather")
def picked_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Run the node on the known elements, if all positions are constants; else what all positions have in common."""
    known, shape = facts.known(node.inputs[0]), facts.shape(node.inputs[0])
    others = [facts.constant(value) for value in node.inputs[1:]]
    if known is None or shape is None:
        return None
    if any(other is None for other in others):
        return _looked_up(node, known, facts) if node.op_type == "Gather" else None
    axes = {node.attributes.get_int("axis", 0) % len(shape)}
    if node.op_type == "Slice":
        axes = set(slices_of(node, facts) or range(len(shape)))
    full = [dim if axis in axes else known.shape[axis] for axis, dim in enumerate(shape)]
    if not all(isinstance(dim, int) for dim in full):
        return None
    mask = np.broadcast_to(np.ma.getmaskarray(known), full)  # type: ignore[arg-type]
    data = np.broadcast_to(known.data, full)  # type: ignore[arg-type]
    result = facts.evaluate(node, [np.ascontiguousarray(data), *others])
    masked = facts.evaluate(node, [mask.astype(data.dtype), *others])
    return None if result is None or masked is None else np.ma.array(result, mask=masked != 0)


def _looked_up(node: ir.Node, known: np.ma.MaskedArray, facts: Facts) -> np.ma.MaskedArray | None:
    """The elements that are the same wherever on the axis they are taken from, such as a column of zeros."""
    index = facts.shape(node.inputs[1])
    if index is None:
        return None
    axis = node.attributes.get_int("axis", 0) % known.ndim
    first = np.take(known.data, [0], axis=axis)
    mask = ((known.data != first) | np.ma.getmaskarray(known)).any(axis=axis, keepdims=True)
    made = (*first.shape[:axis], *(1,) * len(index), *first.shape[axis + 1 :])
    return np.ma.array(first.reshape(made), mask=mask.reshape(made))


@rewrites("Slice")
def slice_bounds(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update starts and ends to the remaining positions."""
    data, slices = node.inputs[0], slices_of(node, facts)
    if data is None or slices is None:
        return
    bounds = {}
    for axis, (start, end, _) in slices.items():
        kept = kept_of(Axis(data, axis))
        if not kept.all():
            bounds[axis] = int(kept[:start].sum()), int(kept[:end].sum())
    if not bounds:
        return
    starts, ends, axes = (array.copy() for array in _slice_operands(node, facts))
    for place, axis in enumerate(axes % facts.rank(data)):
        if int(axis) in bounds:
            starts[place], ends[place] = bounds[int(axis)]
    if "starts" in node.attributes:
        node.attributes["starts"] = ir.AttrInt64s("starts", starts.tolist())
        node.attributes["ends"] = ir.AttrInt64s("ends", ends.tolist())
        return
    replace_operand(node, 1, starts, ir.DataType.from_numpy(starts.dtype))
    replace_operand(node, 2, ends, ir.DataType.from_numpy(ends.dtype))


@passes_channels("Gather")
def gather(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple positions that a constant list selects with their sources; other axes are coupled one to one."""
    data, index = node.inputs[0], node.inputs[1]
    shape, index_shape = facts.shape(data), facts.shape(index)
    if data is None or shape is None or index_shape is None:
        return
    axis, out = node.attributes.get_int("axis", 0) % len(shape), node.outputs[0]
    for other in range(len(shape)):
        made = other if other < axis else other + len(index_shape) - 1
        if other != axis and facts.length(Axis(data, other)) is not None:
            yield Coupling(Axis(data, other), Axis(out, made))
    picked = facts.constant(index)
    length = facts.length(Axis(data, axis))
    if picked is not None and picked.ndim == 1 and length is not None and index is not None:
        yield _picked(Axis(data, axis), Axis(out, axis), picked % length)
        if constant_tensor(index) is not None:
            yield Coupling(Axis(index, 0), Axis(out, axis))


@rewrites("Gather")
def gather_places(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the indices to the remaining positions."""
    data, index = node.inputs[0], node.inputs[1]
    places = facts.constant(index)
    if data is None or index is None or places is None or places.ndim != 1:
        return
    axis = node.attributes.get_int("axis", 0) % facts.rank(data)
    kept = kept_of(Axis(data, axis))
    if len(kept) and not kept.all():
        remaining = places[kept[places % len(kept)]] % len(kept)
        renumbered = (np.cumsum(kept) - 1)[remaining].astype(places.dtype)
        replace_operand(node, 1, renumbered, ir.DataType.from_numpy(places.dtype))


@passes_channels("Pad")
def pad(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple each position with its padded position; positions of constant padding can be removed on their own."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    widths = _pads(node, facts)
    if data is None or shape is None or widths is None:
        return
    out = node.outputs[0]
    for axis, (before, after) in enumerate(widths):
        length = facts.length(Axis(data, axis))
        if length is None or ((before or after) and not _pads_constant(node)):
            continue
        if before >= 0 and after >= 0 and facts.length(Axis(out, axis)) == before + length + after:
            yield _picked(Axis(out, axis), Axis(data, axis), np.arange(before, before + length))


@passes_constants("Pad")
def pad_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Known elements equal to the padding value, and the padding of axes whose positions are all known."""
    source, widths = node.inputs[0], _pads(node, facts)
    value = facts.constant(operand(node, 2))
    if source is None or widths is None or not _pads_constant(node):
        return None
    if len(node.inputs) > 2 and node.inputs[2] is not None and value is None:
        return None
    padding = node.attributes.get_float("value", 0.0) if value is None else value.reshape(-1)[0]
    known = facts.known(source)
    if known is None:
        dtype = facts.dtype(source) or ir.DataType.FLOAT
        known = np.ma.masked_all(
            [facts.length(Axis(source, axis)) or 1 for axis in range(len(widths))], dtype.numpy()
        )
    data, mask = known.data, np.ma.getmaskarray(known)
    for axis, (before, after) in enumerate(widths):
        if before == after == 0:
            continue
        length = facts.length(Axis(source, axis))
        if length is not None and data.shape[axis] == length:
            around = [(before, after) if other == axis else (0, 0) for other in range(data.ndim)]
            data = np.pad(data, around, constant_values=padding)
            mask = np.pad(mask, around, constant_values=False)
        else:
            mask = mask | (data != padding)
    return np.ma.array(data, mask=mask)


@rewrites("Pad")
def pad_widths(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the padding widths."""
    data, widths = node.inputs[0], _pads(node, facts)
    if data is None or widths is None:
        return
    kept_widths = list(widths)
    for axis, (before, after) in enumerate(widths):
        kept = kept_of(Axis(node.outputs[0], axis))
        if (before or after) and not kept.all():
            kept_widths[axis] = int(kept[:before].sum()), int(kept[len(kept) - after :].sum())
    if kept_widths == list(widths):
        return
    if facts.opset < PADS_AS_INPUT:
        pads = [width for side in zip(*kept_widths, strict=True) for width in side]
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        return
    axes = _padded_axes(node, facts) or []
    pads = [kept_widths[axis][side] for side in (0, 1) for axis in axes]
    replace_operand(node, 1, np.array(pads, np.int64), ir.DataType.INT64)


@passes_channels("Expand")
def expand(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple axes that are not stretched; a stretched axis is the same everywhere, so it is free."""
    data, out, elements = node.inputs[0], node.outputs[0], facts.elements(node.inputs[1])
    shape, out_shape = facts.shape(data), facts.shape(out)
    if elements is None or shape is None or out_shape is None:
        return
    lead = len(out_shape) - len(elements)
    fixed = {lead + place for place, element in enumerate(elements) if not changeable(element)}
    couplings = list(couple_broadcast(data, out, facts, skip=fixed))
    lengths = (1,) * (len(out_shape) - len(shape)) + shape
    couplings += [
        Coupling(Axis(out, axis), Axis(out, axis))
        for axis, length in enumerate(lengths)
        if length == 1 and axis not in fixed and isinstance(out_shape[axis], int) and out_shape[axis] != 1
    ]
    yield from couplings
    if lead == 0:
        yield from follow_sizes(node, node.inputs[1], facts, {c.right.dim for c in couplings})


@passes_constants("Expand")
def expanded_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The same elements, along more axes."""
    known, shape = facts.known(node.inputs[0]), facts.shape(node.outputs[0])
    if known is None or shape is None or known.ndim > len(shape):
        return None
    return known.reshape((1,) * (len(shape) - known.ndim) + known.shape)


@rewrites("Expand", "ConstantOfShape")
def made_shape(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the sizes of axes that shrank."""
    index = 1 if node.op_type == "Expand" else 0
    elements, out = facts.elements(node.inputs[index]), node.outputs[0]
    if elements is None:
        return
    lead = facts.rank(out) - len(elements)
    for place, element in enumerate(elements):
        kept = kept_of(Axis(out, lead + place))
        if element.stored and element.dim == len(kept) and not kept.all():
            set_size(node, index, place, int(kept.sum()), facts)


@passes_channels("ConstantOfShape")
def constant_of_shape(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Free axes whose size is a number, and couple those whose size is that of another axis."""
    out, elements = node.outputs[0], facts.elements(node.inputs[0])
    if elements is None:
        return
    named = [axis for axis, element in enumerate(elements) if changeable(element)]
    yield from (Coupling(Axis(out, axis), Axis(out, axis)) for axis in named)
    yield from follow_sizes(node, node.inputs[0], facts, named)


@passes_constants("ConstantOfShape")
def constant_everywhere(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The same number at every position."""
    out = node.outputs[0]
    if facts.shape(out) is None:
        return None
    value = node.attributes.get("value")
    number = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy()
    return np.ma.array(number.reshape((1,) * facts.rank(out)))


@passes_channels("Tile")
def tile(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple each position with all of its copies; of an axis of length 1, each copy is free."""
    repeats, data, out = facts.constant(node.inputs[1]), node.inputs[0], node.outputs[0]
    if repeats is None or data is None or facts.shape(data) is None:
        return
    for axis, times in enumerate(repeats.tolist()):
        length = facts.length(Axis(data, axis))
        if length is None or facts.length(Axis(out, axis)) != length * times or times == 0:
            continue
        if length == 1 != times:
            yield Coupling(Axis(out, axis), Axis(out, axis))
        else:
            yield _picked(Axis(data, axis), Axis(out, axis), np.arange(length * times) % length)


@passes_constants("Tile")
def tiled_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """The same elements, more often along axes that have more than one."""
    known, repeats, shape = (
        facts.known(node.inputs[0]), facts.constant(node.inputs[1]), facts.shape(node.inputs[0]),
    )  # fmt: skip
    if known is None or repeats is None or shape is None or len(repeats) != known.ndim:
        return None
    times = [1 if length == 1 else count for length, count in zip(known.shape, repeats.tolist(), strict=True)]
    data, mask = (np.tile(array, times) for array in (known.data, np.ma.getmaskarray(known)))
    return np.ma.array(data, mask=mask)


@rewrites("Tile")
def tile_repeats(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update how often an axis of length 1 is repeated."""
    data, repeats = node.inputs[0], facts.constant(node.inputs[1])
    if data is None or repeats is None:
        return
    changed = repeats.copy()
    for axis in range(len(repeats)):
        kept = kept_of(Axis(node.outputs[0], axis))
        if facts.length(Axis(data, axis)) == 1 and len(kept) and not kept.all():
            changed[axis] = int(kept.sum())
    if not np.array_equal(changed, repeats):
        replace_operand(node, 1, changed, ir.DataType.from_numpy(repeats.dtype))


def _picked(source: Axis, out: Axis, places: np.ndarray) -> Coupling:
    return Coupling(source, out, places, np.arange(len(places)))


def _slice_operands(node: ir.Node, facts: Facts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends and axes; before opset 10 they are attributes."""
    if "starts" in node.attributes:
        starts, ends = (np.array(node.attributes.get_ints(name, ())) for name in ("starts", "ends"))
        return starts, ends, np.array(node.attributes.get_ints("axes", ()) or range(len(starts)))
    starts, ends = (facts.constant(value) for value in node.inputs[1:3])  # type: ignore[assignment]
    axes = facts.constant(operand(node, 3))
    return starts, ends, np.arange(len(starts)) if axes is None else axes


def slices_of(node: ir.Node, facts: Facts) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step of each axis that is sliced, within its length; None if they are not constant."""
    shape = facts.shape(node.inputs[0])
    if shape is None or any(value is not None and facts.constant(value) is None for value in node.inputs[1:]):
        return None
    starts, ends, axes = _slice_operands(node, facts)
    steps = facts.constant(operand(node, 4))
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    slices = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = shape[int(axis)]
        # A dynamic axis gets an empty slice, which couples nothing.
        slices[int(axis) % len(shape)] = slice(int(start), int(end), int(step)).indices(
            length if isinstance(length, int) else 0
        )
    return slices


def _pads_constant(node: ir.Node) -> bool:
    return node.attributes.get_string("mode", "constant") == "constant"


def _pads(node: ir.Node, facts: Facts) -> tuple[tuple[int, int], ...] | None:
    """The padding (before, after) of each axis; None if it is computed in the graph."""
    shape = facts.shape(node.inputs[0])
    pads: Sequence[int] | np.ndarray | None = node.attributes.get_ints("pads", ())
    if len(node.inputs) > 1:
        pads = facts.constant(node.inputs[1])
    axes = _padded_axes(node, facts)
    if shape is None or pads is None or axes is None:
        return None
    widths = [(0, 0)] * len(shape)
    for place, axis in enumerate(axes):
        widths[axis] = int(pads[place]), int(pads[place + len(axes)])
    return tuple(widths)


def _padded_axes(node: ir.Node, facts: Facts) -> list[int] | None:
    rank = len(facts.shape(node.inputs[0]) or ())
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = facts.constant(node.inputs[3])
        return None if axes is None else [int(axis) % rank for axis in axes]
    return list(range(rank))

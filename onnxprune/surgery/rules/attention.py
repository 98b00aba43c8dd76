"""Fused attention: ONNX's, and onnxruntime's Attention, QAttention, MultiHeadAttention and GroupQueryAttention.

Whole heads are removed; where several query heads share a key head, whole groups of them, or the same query heads of
every group. Or part of the width of every head, of queries and keys, or of values and outputs: the scale, by default
1 / sqrt(width of a head), is then written down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxprune.model.names import name_of
from onnxprune.model.operands import is_read, operand
from onnxprune.model.shapes.inference import MICROSOFT
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.scales import couple_scales, only_number
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Contraction,
    Coupling,
    Kept,
    OneOf,
    passes_channels,
    rewrites,
)

# Data, weights, bias, mask, position bias; and scales and zero points; not the past.
PACKED_INPUTS = {"Attention": (0, 1, 2, 3, 5), "QAttention": range(8)}
POSITION_BIAS = {"Attention": 5}
MULTI_HEAD_INPUTS = range(9)  # all but the indirection of a beam search
GROUPED_INPUTS = range(11)  # all but sinks, scales of quantized caches, and norms of queries and keys


@passes_channels(*PACKED_INPUTS, domain=MICROSOFT)
def packed_attention(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """The three projections are consecutive columns of one weight."""
    data, weight, out = node.inputs[0], node.inputs[1], node.outputs[0]
    if (
        data is None
        or weight is None
        or not _only(node, PACKED_INPUTS[node.op_type])
        or len(_named(node)) != 1
    ):
        return
    packed, heads = facts.length(Axis(weight, 1)), node.attributes.get_int("num_heads", 1)
    if packed is None or node.attributes.get_int("do_rotary", 0) == 1 or facts.shape(out) is None:
        return
    sizes = node.attributes.get_ints("qkv_hidden_sizes", ()) or (packed // 3,) * 3
    parts = np.concatenate([np.repeat(np.arange(heads), size // heads) for size in sizes])
    made = np.repeat(np.arange(heads), sizes[2] // heads)
    if len(parts) != packed or facts.length(Axis(out, 2)) != len(made):
        return
    masks = _masks([operand(node, POSITION_BIAS.get(node.op_type))], heads, facts)
    scales = couple_scales(node, 1, Axis(weight, 1), facts)
    if masks is None or scales is None:
        return
    yield from scales
    joined = [(Axis(weight, 1), parts), *_bias(node, 2, parts), *masks, (Axis(out, 2), made)]
    yield from _coupled(joined)
    refusal = f"{node.op_type} {name_of(node)!r} projects it into queries, keys and values"
    columns = Axis(weight, 1)
    zero = only_number(operand(node, 6), facts) if node.op_type == "QAttention" else 0.0
    yield Contraction(node, Axis(data, 2), Axis(weight, 0), columns, columns, refusal=refusal, zero=zero)


@passes_channels("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Queries, keys and values are already projected; their heads are consecutive."""
    if not _only(node, MULTI_HEAD_INPUTS) or operand(node, 1) is None or operand(node, 2) is None:
        return
    heads = node.attributes.get_int("num_heads", 1)
    sides = _sides(node, facts, heads, heads, pasts=(6, 7), mask=5)
    if sides is None:
        return
    if operand(node, 3) is None:
        yield from _ways(node, sides, 1, by_width=True)
        return
    packed = np.concatenate([side.heads for side in (sides.queries, sides.keys[0], sides.values[0])])
    yield from _coupled([*_bias(node, 3, packed), *_by_head(sides, 1)])


@passes_channels("GroupQueryAttention", domain=MICROSOFT)
def grouped_attention(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Several query heads share a key head. All heads have one width, which stays: kernels want multiples of 8."""
    heads, shared = (node.attributes.get_int(name, 0) for name in ("num_heads", "kv_num_heads"))
    if not _only(node, GROUPED_INPUTS) or not heads or not shared or heads % shared:
        return
    if operand(node, 1) is None or operand(node, 2) is None:
        yield from _packed_group(node, facts, heads, shared)
        return
    sides = _sides(node, facts, heads, shared, pasts=(3, 4), mask=10)
    if sides is not None:
        yield from _ways(node, sides, heads // shared, by_width=False)


@passes_channels("Attention")
def attention(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Queries, keys and values of three axes with consecutive heads, or of four; query heads may share a key head."""
    operands = [operand(node, index) for index in range(3)]
    if any(value is None or facts.shape(value) is None for value in operands):
        return
    counts = [
        node.attributes.get_int(f"{name}_num_heads", 0)
        if facts.rank(value) == 3
        else facts.length(Axis(value, 1))
        for name, value in zip(("q", "kv", "kv"), operands, strict=True)
        if value is not None
    ]
    heads, shared = counts[0], counts[1]
    if not heads or not shared or counts[2] != shared or heads % shared:
        return
    sides = _sides(node, facts, heads, shared, pasts=(4, 5), mask=3)
    if sides is not None:
        yield from _ways(node, sides, heads // shared, by_width=True)


@passes_channels("RotaryEmbedding")
@passes_channels("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Whole heads; the width of a head stays, because its positions are rotated in pairs."""
    data, out = node.inputs[0], node.outputs[0]
    shape = facts.shape(data)
    heads = _rotated_heads(node, facts)
    if data is None or shape is None or heads is None or facts.shape(out) != shape:
        return
    parts = [_side(value, heads, facts) for value in (data, out)]
    yield from _coupled([(side.head_axis, side.heads) for side in parts if side is not None])


@rewrites(*PACKED_INPUTS, "MultiHeadAttention", "GroupQueryAttention", domain=MICROSOFT)
@rewrites("Attention")
def attention_heads(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the numbers of heads, the sizes of packed projections, and write the scale down if the width changes."""
    standard = node.domain != MICROSOFT
    names = ("q_num_heads", "kv_num_heads") if standard else ("num_heads", "kv_num_heads")
    heads = node.attributes.get_int(names[0], 0)
    shared = node.attributes.get_int(names[1], 0) or heads
    packed = operand(node, 1) is None or (node.op_type in PACKED_INPUTS and not standard)
    queries = node.outputs[0] if packed else node.inputs[0]
    assert queries is not None
    four = facts.rank(queries) == 4
    kept = kept_of(Axis(queries, 3 if four else 2))
    if four:
        kept = kept[np.newaxis]
    elif len(kept) and heads:
        kept = kept.reshape(heads, -1)
        left = int(kept.any(axis=1).sum())
        left_keys = left * shared // heads if packed else _heads_left(node.inputs[1], shared, facts, kept_of)
        for name, before, after in zip(names, (heads, shared), (left, left_keys), strict=True):
            if node.attributes.get_int(name, 0) and before != after:
                node.attributes[name] = ir.AttrInt64(name, after)
        sizes = node.attributes.get_ints("qkv_hidden_sizes", ())
        if sizes and left != heads:
            of_each = [size // heads * left for size in sizes]
            node.attributes["qkv_hidden_sizes"] = ir.AttrInt64s("qkv_hidden_sizes", of_each)
    width = kept.shape[1] if kept.ndim == 2 else 0
    if width and not packed and not kept.any(axis=0).all() and not node.attributes.get_float("scale", 0.0):
        node.attributes["scale"] = ir.AttrFloat32("scale", width**-0.5)


@rewrites("RotaryEmbedding")
@rewrites("RotaryEmbedding", domain=MICROSOFT)
def rotated_heads(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the number of heads, where it is an attribute."""
    heads, rank = node.attributes.get_int("num_heads", 0), facts.rank(node.outputs[0])
    kept = kept_of(Axis(node.outputs[0], rank - 1))
    if heads and rank == 3 and not kept.all():
        node.attributes["num_heads"] = ir.AttrInt64("num_heads", heads * int(kept.sum()) // len(kept))


def _heads_left(value: ir.Value | None, heads: int, facts: Facts, kept_of: Kept) -> int:
    """How many of the heads of a value keep any of their width."""
    assert value is not None
    kept = kept_of(Axis(value, 1 if facts.rank(value) == 4 else 2))
    return int(kept.reshape(heads, -1).any(axis=1).sum()) if len(kept) else heads


class _Side(NamedTuple):
    """Where a value has its heads and their width: the axes, and the head and place of each position."""

    head_axis: Axis
    heads: np.ndarray
    width_axis: Axis
    places: np.ndarray


class _Sides(NamedTuple):
    """Queries; keys and values, their pasts included; outputs; the head axes of masks and the like."""

    queries: _Side
    keys: tuple[_Side, ...]
    values: tuple[_Side, ...]
    out: _Side
    masks: tuple[tuple[Axis, np.ndarray], ...]


def _sides(
    node: ir.Node, facts: Facts, heads: int, shared: int, pasts: tuple[int, int], mask: int
) -> _Sides | None:
    """The sides of a node, from the indices of its pasts and of its mask by head; None if a shape is not known."""
    used = [value if is_read(value) else None for value in node.outputs]
    _, *present, scores = [*used, None, None, None][:4]
    groups: list[list[_Side]] = []
    for values, count in (
        ([node.inputs[0]], heads),
        ([node.inputs[1], operand(node, pasts[0]), present[0]], shared),
        ([node.inputs[2], operand(node, pasts[1]), present[1]], shared),
        ([node.outputs[0]], heads),
    ):
        found = [_side(value, count, facts) for value in values if value is not None]
        groups.append([side for side in found if side is not None])
        if None in found or len({side.places.max() for side in groups[-1]}) != 1:
            return None
    (queries,), keys, of_values, (out,) = groups
    masks = _masks([operand(node, mask), scores], heads, facts)
    widths = [side.places.max() for side in (queries, keys[0], of_values[0], out)]
    if masks is None or widths[0] != widths[1] or widths[2] != widths[3]:
        return None
    return _Sides(queries, tuple(keys), tuple(of_values), out, tuple(masks))


def _side(value: ir.Value | None, heads: int, facts: Facts) -> _Side | None:
    """The hidden axis of a value of three axes, or the axes of heads and width of one of four."""
    shape = facts.shape(value)
    if value is None or shape is None or len(shape) not in (3, 4):
        return None
    width = shape[-1]
    if not isinstance(width, int) or not width:
        return None
    if (len(shape) == 3 and width % heads) or (len(shape) == 4 and shape[1] != heads):
        return None
    if len(shape) == 4:
        return _Side(Axis(value, 1), np.arange(heads), Axis(value, 3), np.arange(width))
    of_each = width // heads
    axis = Axis(value, 2)
    return _Side(axis, np.repeat(np.arange(heads), of_each), axis, np.tile(np.arange(of_each), heads))


def _ways(node: ir.Node, sides: _Sides, ratio: int, *, by_width: bool) -> Iterator[Claim]:
    """What can be removed: heads; the same query heads of every group; part of the width of every head."""
    ways: list[tuple[Coupling | Contraction, ...]] = [tuple(_coupled(_by_head(sides, ratio)))]
    if ratio > 1:
        within = [(side.head_axis, side.heads % ratio) for side in (sides.queries, sides.out)]
        ways.append(tuple(_coupled([(axis, part % ratio) for axis, part in sides.masks] + within)))
    if by_width:
        ways.append(tuple(_by_width(node, sides)))
    yield OneOf(tuple(ways))


def _by_head(sides: _Sides, ratio: int) -> list[tuple[Axis, np.ndarray]]:
    return [
        *((axis, part // ratio) for axis, part in sides.masks),
        *((side.head_axis, side.heads) for side in (*sides.keys, *sides.values)),
        *((side.head_axis, side.heads // ratio) for side in (sides.queries, sides.out)),
    ]


def _by_width(node: ir.Node, sides: _Sides) -> Iterator[Coupling | Contraction]:
    """Queries with keys, and values with outputs. What is zero in the queries adds nothing to a product."""
    for joined in ((*sides.keys, sides.queries), (*sides.values, sides.out)):
        yield from _coupled([(side.width_axis, side.places) for side in joined])
    yield Contraction(node, sides.queries.width_axis, sides.queries.width_axis, None, None)


def _packed_group(node: ir.Node, facts: Facts, heads: int, shared: int) -> Iterator[Claim]:
    """Queries, keys and values in one array, one after the other."""
    data, out = node.inputs[0], node.outputs[0]
    length = facts.length(Axis(data, 2)) if data is not None else None
    made = _side(out, heads, facts)
    if data is None or length is None or made is None or length % (heads + 2 * shared):
        return
    if any(map(is_read, node.outputs[1:])) or any(operand(node, index) is not None for index in (3, 4, 10)):
        return
    parts = np.concatenate([np.arange(heads) // (heads // shared), np.arange(shared), np.arange(shared)])
    of_each = length // (heads + 2 * shared)
    yield from _coupled(
        [(Axis(data, 2), np.repeat(parts, of_each)), (made.head_axis, made.heads // (heads // shared))]
    )


def _masks(
    values: Sequence[ir.Value | None], heads: int, facts: Facts
) -> list[tuple[Axis, np.ndarray]] | None:
    """The head axes of masks, third from the right, where they have more than one position; None if not known."""
    found = []
    for value in values:
        if value is None:
            continue
        shape = facts.shape(value)
        if shape is None or (len(shape) > 2 and shape[-3] not in (1, heads)):
            return None
        if len(shape) > 2 and shape[-3] == heads != 1:
            found.append((Axis(value, len(shape) - 3), np.arange(heads)))
    return found


def _rotated_heads(node: ir.Node, facts: Facts) -> int | None:
    shape = facts.shape(node.inputs[0]) or ()
    if len(shape) == 4:
        return shape[1] if isinstance(shape[1], int) else None
    return node.attributes.get_int("num_heads", 0) or None


def _only(node: ir.Node, inputs: Sequence[int]) -> bool:
    """Whether a node has no other inputs than these."""
    return all(value is None for index, value in enumerate(node.inputs) if index not in inputs)


def _named(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.outputs if value.name]


def _bias(node: ir.Node, index: int, parts: np.ndarray) -> list[tuple[Axis, np.ndarray]]:
    bias = operand(node, index)
    return [] if bias is None else [(Axis(bias, 0), parts)]


def _coupled(parts: list[tuple[Axis, np.ndarray]]) -> Iterator[Coupling]:
    """Couple every position with the first position of its part on the last of the axes."""
    last, of_last = parts[-1]
    first = np.unique(of_last, return_index=True)[1]
    for axis, part in parts:
        yield Coupling(axis, last, np.arange(len(part)), first[part])

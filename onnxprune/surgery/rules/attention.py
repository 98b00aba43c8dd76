"""Fused attention: ONNX Attention, and onnxruntime's Attention and MultiHeadAttention. Whole heads are removed.

The width inside the heads is frozen, because the scale is 1 / sqrt(width of a head).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.model.shapes import MICROSOFT
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Claim, Contraction, Coupling, Kept, passes_channels, rewrites

PACKED_PLAIN_INPUTS = (0, 1, 2, 3)  # Attention: data, weights, bias, mask; the rest is past and position bias
MULTI_HEAD_PLAIN_INPUTS = (0, 1, 2, 3, 4)  # query, key, value, bias, key padding mask
ONNX_PLAIN_INPUTS = (0, 1, 2, 3)  # query, key, value, mask


@passes_channels("Attention", domain=MICROSOFT)
def packed_attention(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """The three projections are consecutive columns of one weight."""
    data, weight, out = node.inputs[0], node.inputs[1], node.outputs[0]
    if data is None or weight is None or not _plain(node, PACKED_PLAIN_INPUTS):
        return
    packed, heads = facts.length(Axis(weight, 1)), node.attributes.get_int("num_heads", 1)
    if packed is None or node.attributes.get_int("do_rotary", 0) == 1 or facts.shape(out) is None:
        return
    sizes = _packed_sizes(node, packed)
    parts = np.concatenate([np.repeat(np.arange(heads), size // heads) for size in sizes])
    made = np.repeat(np.arange(heads), sizes[2] // heads)
    if len(parts) != packed or facts.length(Axis(out, 2)) != len(made):
        return
    yield from _by_head([(Axis(weight, 1), parts), *_bias(node, 2, parts), (Axis(out, 2), made)])
    refusal = f"Attention {node.name!r} projects it into queries, keys and values"
    columns = Axis(weight, 1)
    yield Contraction(node, Axis(data, 2), Axis(weight, 0), columns, columns, refusal=refusal)


@passes_channels("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Queries, keys and values are already projected; their heads are consecutive."""
    operands = [*node.inputs[:3], node.outputs[0]]
    if not _plain(node, MULTI_HEAD_PLAIN_INPUTS) or len(node.inputs) < 3:
        return
    heads = node.attributes.get_int("num_heads", 1)
    parts = _parts(operands, (heads,) * 4, facts)
    if parts is None:
        return
    packed = np.concatenate([part for _, part in parts[:3]])
    yield from _by_head([*parts, *_bias(node, 3, packed)])


@passes_channels("Attention")
def attention(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Queries, keys and values of three axes with consecutive heads; several query heads may share one key head."""
    if not _plain(node, ONNX_PLAIN_INPUTS) or len(node.inputs) < 3:
        return
    mask = facts.shape(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else ()
    if mask is None or (len(mask) > 2 and mask[-3] != 1):
        return
    queries, shared = (node.attributes.get_int(f"{name}_num_heads", 0) for name in ("q", "kv"))
    if not queries or not shared or queries % shared:
        return
    operands = [*node.inputs[:3], node.outputs[0]]
    parts = _parts(operands, (queries, shared, shared, queries), facts)
    if parts is not None:
        ratio = queries // shared
        yield from _by_head(
            [(axis, part // ratio if index in (0, 3) else part) for index, (axis, part) in enumerate(parts)]
        )


@rewrites("Attention", "MultiHeadAttention", domain=MICROSOFT)
def fused_heads(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the number of heads, and the sizes of the projections if they are attributes."""
    kept = kept_of(Axis(node.outputs[0], 2))
    if kept.all():
        return
    heads = node.attributes.get_int("num_heads", 1)
    left = _share(heads, kept)
    node.attributes["num_heads"] = ir.AttrInt64("num_heads", left)
    sizes = node.attributes.get_ints("qkv_hidden_sizes", ())
    if sizes:
        node.attributes["qkv_hidden_sizes"] = ir.AttrInt64s(
            "qkv_hidden_sizes", [size // heads * left for size in sizes]
        )


@rewrites("Attention")
def attention_heads(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the numbers of heads."""
    kept = kept_of(Axis(node.outputs[0], 2))
    for name in ("q_num_heads", "kv_num_heads"):
        if len(kept) and not kept.all():
            node.attributes[name] = ir.AttrInt64(name, _share(node.attributes.get_int(name, 0), kept))


def _share(heads: int, kept: np.ndarray) -> int:
    return heads * int(kept.sum()) // len(kept)


def _plain(node: ir.Node, inputs: Sequence[int]) -> bool:
    """Whether the node has no past, no position bias, and one output."""
    return len([value for value in node.outputs if value.name]) == 1 and all(
        value is None for index, value in enumerate(node.inputs) if index not in inputs
    )


def _packed_sizes(node: ir.Node, packed: int) -> Sequence[int]:
    return node.attributes.get_ints("qkv_hidden_sizes", ()) or (packed // 3,) * 3


def _bias(node: ir.Node, index: int, parts: np.ndarray) -> list[tuple[Axis, np.ndarray]]:
    bias = node.inputs[index] if len(node.inputs) > index else None
    return [] if bias is None else [(Axis(bias, 0), parts)]


def _parts(
    operands: Sequence[ir.Value | None], heads: Sequence[int], facts: Facts
) -> list[tuple[Axis, np.ndarray]] | None:
    """The hidden axis of each operand and the head of each position; None if an operand does not have three axes."""
    parts = []
    for value, count in zip(operands, heads, strict=True):
        shape = facts.shape(value)
        if (
            value is None
            or shape is None
            or len(shape) != 3
            or not isinstance(shape[2], int)
            or shape[2] % count
        ):
            return None
        parts.append((Axis(value, 2), np.repeat(np.arange(count), shape[2] // count)))
    return parts


def _by_head(parts: list[tuple[Axis, np.ndarray]]) -> Iterator[Coupling]:
    """Couple every position with the first position of its head on the last of the axes."""
    last, heads = parts[-1]
    first = np.unique(heads, return_index=True)[1]
    for axis, part in parts:
        yield Coupling(axis, last, np.arange(len(part)), first[part])

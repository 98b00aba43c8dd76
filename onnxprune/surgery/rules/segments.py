"""The correspondence of axes in a reshape: (N, C, H, W) to (N, C*H*W) has the segments N|N and CHW|C*H*W."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from onnxprune.model.shapes.sizes import Dim, factors

# Sizes with names, and one that is not known, are matched as primes, which no product of real sizes has as a factor.
OPEN, *NAMED = (2**exponent - 1 for exponent in (61, 89, 107, 127, 521, 607))


class Segment(NamedTuple):
    """Consecutive axes of both shapes with the same elements in the same order."""

    left: tuple[int, ...]
    right: tuple[int, ...]


def match_segments(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[Segment, ...] | None:
    """The finest segments, from the front; None if unknown sizes make them ambiguous.

    match_segments(("N", 16, 5, 5), ("N", 400)) -> ((0,)|(0,), (1, 2, 3)|(1,)). A shape may have one size without a
    name, or with another name than in the other shape, if the known sizes determine it. If more sizes are unknown,
    those at both ends with the same product are segments, and all axes between them are one segment.
    """
    if 0 in left or 0 in right:
        return None
    sizes = _as_numbers(left, right)
    if sizes is not None:
        return _finest(*sizes)
    a, b = ([_numbered(dim, left, right) for dim in shape] for shape in (left, right))
    first = _matched_ends(a, b)
    last = _matched_ends(a[first[0] :][::-1], b[first[1] :][::-1])
    ends = len(a) - last[0], len(b) - last[1]
    before = _finest(a[: first[0]], b[: first[1]])  # type: ignore[arg-type]
    after = _finest(a[ends[0] :], b[ends[1] :])  # type: ignore[arg-type]
    middle = Segment(tuple(range(first[0], ends[0])), tuple(range(first[1], ends[1])))
    if before is None or after is None or not all(middle):
        return None
    moved = (
        Segment(*(tuple(x + end for x in axes) for axes, end in zip(s, ends, strict=True))) for s in after
    )
    return (*before, middle, *moved)


def _matched_ends(a: Sequence[int | None], b: Sequence[int | None]) -> tuple[int, int]:
    """How many sizes of either side, from its first on, certainly have the same product: as many as there are."""
    found = i, j = 0, 0
    product_a = product_b = 1
    while True:
        behind = product_a < product_b, product_b < product_a
        if not any(behind):
            found, behind = (i, j), (True, True)
        if (behind[0] and (i == len(a) or a[i] is None)) or (behind[1] and (j == len(b) or b[j] is None)):
            return found
        if behind[0]:
            product_a, i = product_a * (a[i] or 0), i + 1
        if behind[1]:
            product_b, j = product_b * (b[j] or 0), j + 1


def _finest(a: list[int], b: list[int]) -> tuple[Segment, ...] | None:
    """The finest segments of two numeric shapes; None if their numbers of elements differ."""
    segments = []
    i = j = 0
    while i < len(a) or j < len(b):
        start_i, start_j = i, j
        product_a = product_b = 1
        if i < len(a) and (j == len(b) or a[i] == 1 != b[j]):
            i += 1
        elif j < len(b) and (i == len(a) or b[j] == 1 != a[i]):
            j += 1
        else:
            product_a, product_b, i, j = a[i], b[j], i + 1, j + 1
            while product_a != product_b:
                if product_a < product_b and i < len(a):
                    product_a, i = product_a * a[i], i + 1
                elif product_b < product_a and j < len(b):
                    product_b, j = product_b * b[j], j + 1
                else:
                    return None
        segments.append(Segment(tuple(range(start_i, i)), tuple(range(start_j, j))))
    return tuple(segments)


class Factor(NamedTuple):
    """A common factor of an axis of either shape, and the coordinate along it for each position of both axes."""

    left: int
    right: int
    left_coordinate: np.ndarray
    right_coordinate: np.ndarray


def common_factors(segment: Segment, left: Sequence[Dim], right: Sequence[Dim]) -> tuple[Factor, ...]:
    """The common factors of static axes of both sides of a segment, outermost first; empty if there are none.

    (4, 6) and (2, 12) are 2 * 2 * 6: the first factor lies in axis 0 of both, the second in axis 0 and axis 1. Of
    ("N", 32) and ("4*N", 8), the factor 8 lies in axis 1 of both.
    """
    sizes = _as_numbers([left[axis] for axis in segment.left], [right[axis] for axis in segment.right])
    if sizes is None:
        return ()
    a, b = (_spans(axes, numbers) for axes, numbers in zip(segment, sizes, strict=True))
    ends = sorted({end for span in (*a.values(), *b.values()) for end in span})
    if any(high % low for low, high in pairwise(ends)):
        return ()
    factors = []
    for low, high in pairwise(ends):
        holders = [
            next((axis, span) for axis, span in spans.items() if span[0] <= low and high <= span[1])
            for spans in (a, b)
        ]
        if not isinstance(left[holders[0][0]], int) or not isinstance(right[holders[1][0]], int):
            continue
        coordinates = [
            np.arange(span[1] // span[0]) // (low // span[0]) % (high // low) for _, span in holders
        ]
        factors.append(Factor(holders[0][0], holders[1][0], *coordinates))
    return tuple(reversed(factors))


def _spans(axes: Sequence[int], numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
    """The stride of each axis, and the stride times its length; axes of length 1 are skipped."""
    spans, step = {}, 1
    for axis, number in zip(reversed(axes), reversed(numbers), strict=True):
        if number > 1:
            spans[axis] = (step, step * number)
            step *= number
    return spans


def reshape_known(
    known: np.ma.MaskedArray, segments: Sequence[Segment], left: Sequence[Dim], right: Sequence[Dim]
) -> np.ma.MaskedArray:
    """`known` (axes of length 1 represent any length, see Facts.known), reshaped to the axes of `right`."""
    full_shape: list[int] = []
    out_shape: list[int] = []
    for segment in segments:
        sizes = [left[axis] for axis in segment.left] + [right[axis] for axis in segment.right]
        if all(known.shape[axis] == 1 for axis in segment.left):
            full_shape += [1] * len(segment.left)
            out_shape += [1] * len(segment.right)
        elif all(isinstance(size, int) for size in sizes):
            full_shape += sizes[: len(segment.left)]  # type: ignore[arg-type]
            out_shape += sizes[len(segment.left) :]  # type: ignore[arg-type]
        else:
            period = _periodic(known, segment, left, right)
            if period is None:
                for axis in segment.left:
                    known = _uniform(known, axis)
                period = known, 1
            known, length = period
            full_shape += known.shape[segment.left[0] : segment.left[-1] + 1]
            out_shape += [*[1] * (len(segment.right) - 1), length][: len(segment.right)]
    data = np.broadcast_to(known.data, full_shape).reshape(out_shape)
    mask = np.broadcast_to(np.ma.getmaskarray(known), full_shape).reshape(out_shape)
    return np.ma.array(data, mask=mask)


def _periodic(
    known: np.ma.MaskedArray, segment: Segment, left: Sequence[Dim], right: Sequence[Dim]
) -> tuple[np.ma.MaskedArray, int] | None:
    """What is known at each position of the last axis of a segment, wherever along the others.

    As an array whose other axes of the segment have length 1, and its last the length of that of `right`.
    """
    last = segment.left[-1]
    length, made = left[last], right[segment.right[-1]] if segment.right else None
    if not isinstance(length, int) or not isinstance(made, int) or (length % made and made % length):
        return None
    for axis in segment.left[:-1]:
        known = _uniform(known, axis)
    if known.shape[last] == 1:
        return known, 1
    before, after = known.shape[:last], known.shape[last + 1 :]
    if length >= made:
        split = np.ma.reshape(known, (*before, length // made, made, *after))
        return np.ma.reshape(_uniform(split, last), (*before, made, *after)), made
    return np.ma.concatenate([known] * (made // length), axis=last), made


def _uniform(known: np.ma.MaskedArray, axis: int) -> np.ma.MaskedArray:
    """The elements that are known and the same along an axis, which becomes of length 1."""
    first = np.take(known.data, [0], axis=axis)
    differs = (known.data != first) | np.ma.getmaskarray(known)
    return np.ma.array(first, mask=differs.any(axis=axis, keepdims=True))


def _as_numbers(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[list[int], list[int]] | None:
    """Both shapes as numbers, with a unique number for each name; None if they cannot be matched.

    One size that is not known, or has a name that is not in the other shape, is what the others leave.
    """
    both = [[_numbered(dim, left, right) for dim in shape] for shape in (left, right)]
    open_axes = [[axis for axis, number in enumerate(side) if number is None] for side in both]
    if len(open_axes[0]) == len(open_axes[1]) == 1:
        known = [math.prod(number for number in side if number is not None) for side in both]
        if not all(known) or max(known) % min(known):
            return None
        for side, (axis,), number in zip(both, open_axes, known, strict=True):
            side[axis] = OPEN * (max(known) // number)
    elif open_axes[0] or open_axes[1]:
        side, other = both if open_axes[0] else both[::-1]
        axes = open_axes[0] or open_axes[1]
        if (open_axes[0] and open_axes[1]) or len(axes) != 1:
            return None
        whole = math.prod(number for number in other if number is not None)
        part = math.prod(number for number in side if number is not None)
        if not part or whole % part:
            return None
        side[axes[0]] = whole // part
    return both[0], both[1]  # type: ignore[return-value]


def _numbered(dim: Dim, left: Sequence[Dim], right: Sequence[Dim]) -> int | None:
    """The size as a number; None where it is not known, or has a name that is not in both shapes."""
    found = factors(dim)
    shared = sorted(_names(left) & _names(right))[: len(NAMED)]
    if found is None or not set(found[1]).issubset(shared):
        return None
    return found[0] * math.prod(NAMED[shared.index(name)] for name in found[1])


def _names(shape: Sequence[Dim]) -> set[str]:
    return {name for dim in shape for name in (factors(dim) or (1, ()))[1]}

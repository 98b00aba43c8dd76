"""How the axes of two shapes of the same elements belong together: (N, C, H, W) and (N, C*H*W) are N|N, CHW|C*H*W."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from onnxprune.surgery.shapes import Dim

# A symbolic size is matched as if it were a number from here on, which no product of real sizes reaches.
FIRST_SYMBOL = 2**61 - 1


class Segment(NamedTuple):
    """Neighbouring axes of one shape and of the other that hold the same elements in the same order."""

    left: tuple[int, ...]
    right: tuple[int, ...]


def match_segments(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[Segment, ...] | None:
    """The finest segments, from the front; None where sizes that are not known leave it open.

    match_segments(("N", 16, 5, 5), ("N", 400)) -> ((0,)|(0,), (1, 2, 3)|(1,)). A shape may hold one size that has no
    name or another name in the other shape, if the known sizes leave just one value for it.
    """
    sizes = _as_numbers(left, right)
    if sizes is None:
        return None
    a, b = sizes
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


def reshape_known(
    known: np.ma.MaskedArray, segments: Sequence[Segment], left: Sequence[Dim], right: Sequence[Dim]
) -> np.ma.MaskedArray | None:
    """`known` (axes of length 1 stand for any length, see Facts.known) with the axes of `right`."""
    full_shape: list[int] = []
    out_shape: list[int] = []
    for segment in segments:
        if all(known.shape[axis] == 1 for axis in segment.left):
            full_shape += [1] * len(segment.left)
            out_shape += [1] * len(segment.right)
            continue
        sizes = [left[axis] for axis in segment.left] + [right[axis] for axis in segment.right]
        if not all(isinstance(size, int) for size in sizes):
            return None
        full_shape += sizes[: len(segment.left)]  # type: ignore[arg-type]
        out_shape += sizes[len(segment.left) :]  # type: ignore[arg-type]
    data = np.broadcast_to(known.data, full_shape).reshape(out_shape)
    mask = np.broadcast_to(np.ma.getmaskarray(known), full_shape).reshape(out_shape)
    return np.ma.array(data, mask=mask)


def _as_numbers(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[list[int], list[int]] | None:
    """Both shapes in numbers, each symbol as one number that occurs nowhere else."""
    if 0 in left or 0 in right:
        return None
    symbols_left = [dim for dim in left if not isinstance(dim, int)]
    symbols_right = [dim for dim in right if not isinstance(dim, int)]
    if sorted(map(str, symbols_left)) == sorted(map(str, symbols_right)) and None not in symbols_left:
        names = {name: FIRST_SYMBOL + number for number, name in enumerate(symbols_left)}
        return [_number(dim, names) for dim in left], [_number(dim, names) for dim in right]
    static_left = [dim for dim in left if isinstance(dim, int)]
    static_right = [dim for dim in right if isinstance(dim, int)]
    if len(symbols_left) == len(symbols_right) == 1 and np.prod(static_left) == np.prod(static_right):
        return (
            [dim if isinstance(dim, int) else FIRST_SYMBOL for dim in left],
            [dim if isinstance(dim, int) else FIRST_SYMBOL for dim in right],
        )
    return None


def _number(dim: Dim, names: dict) -> int:
    return dim if isinstance(dim, int) else names[dim]

"""The storage of a sparse weight: its non-zeros, and the gaps between them.

The weight is read flat, in C order. `gaps` holds the distance from one entry to the next as one byte, the
first counted from just before the weight, so that `positions = cumsum(gaps) - 1`. A distance above 255 is
bridged by fillers: entries of gap 255 and value 0.

    weight [0 0 7 0 0 0 9]  ->  values [7 9], gaps [3 4], shape [7]

Smaller still, values are rounded to fp16, and gaps packed two a byte, the first in the low half; then they are bridged
from 15 on. Or values are rounded to integers with a scale for each output channel; coding.py stores these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from onnxprune.errors import ModelFileError
from onnxprune.model.encoding import on_axis

MAX_GAP = 255
MAX_HALF_GAP = 15
# fp16 holds numbers from here on with all its bits.
SMALLEST_NORMAL_HALF = float(np.finfo(np.float16).tiny)
# The largest integer of a type, of those that values are rounded to.
LARGEST = {"int8": 127, "int4": 7}
# Elements looked at in one go: fits a core's cache (3x faster than in one piece) and bounds the extra memory.
CHUNK = 1 << 18


class Encoded(NamedTuple):
    """A sparse weight: `values` (n), or (n, block) in blocks.py, `gaps` (n) uint8, `shape` (rank) int64."""

    values: np.ndarray
    gaps: np.ndarray
    shape: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.gaps.nbytes + self.shape.nbytes


def encoded_bytes(entries: int, itemsize: int, rank: int) -> int:
    """Bytes of a weight encoded in `entries` non-zeros and fillers, `itemsize` bytes a value."""
    return entries * (itemsize + 1) + rank * np.dtype(np.int64).itemsize


def encode(weight: np.ndarray, max_gap: int = MAX_GAP) -> Encoded:
    """The non-zeros of `weight` (any shape and numeric dtype) and the gaps between them, up to `max_gap`.

    NaN is a non-zero; -0.0 is a zero. A weight of zeros only gets one filler, because runtimes differ in what
    they make of empty tensors.
    """
    flat = np.ascontiguousarray(weight).reshape(-1)
    shape = np.array(weight.shape, dtype=np.int64)
    values: list[np.ndarray] = []
    gaps: list[np.ndarray] = []
    last = -1
    for start in range(0, flat.size, CHUNK):
        chunk = flat[start : start + CHUNK]
        found = np.flatnonzero(chunk != 0)
        if found.size:
            distances = np.diff(found, prepend=last - start)
            chunk_values, chunk_gaps = _bridge(chunk[found], distances, max_gap)
            values.append(chunk_values)
            gaps.append(chunk_gaps)
            last = start + int(found[-1])
    if not values:
        one_filler = min(flat.size, 1)
        return Encoded(np.zeros(one_filler, flat.dtype), np.ones(one_filler, np.uint8), shape)
    return Encoded(np.concatenate(values), np.concatenate(gaps), shape)


def _bridge(nonzeros: np.ndarray, distances: np.ndarray, max_gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and gaps of non-zeros at these distances, fillers put in: [7], [300] -> [0 7], [255 45]."""
    fillers = (distances - 1) // max_gap
    if not fillers.any():
        return nonzeros, distances.astype(np.uint8)
    entries = np.cumsum(fillers + 1) - 1
    gaps = np.full(entries[-1] + 1, max_gap, np.uint8)
    gaps[entries] = distances - max_gap * fillers
    values = np.zeros(gaps.size, nonzeros.dtype)
    values[entries] = nonzeros
    return values, gaps


def pack_gaps(gaps: np.ndarray) -> np.ndarray:
    """Gaps (n) of at most 15 as half bytes (n / 2, rounded up), the first in the low half: [3 4 1] -> [67 1]."""
    padded = np.append(gaps, np.zeros(len(gaps) % 2, np.uint8))
    return padded[0::2] | (padded[1::2] << 4)


def unpack_gaps(packed: np.ndarray, count: int) -> np.ndarray:
    """The `count` gaps that `pack_gaps` was given."""
    return np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count]


def halved(integers: np.ndarray) -> np.ndarray:
    """All integers from -8 to 7 of an array, plus 8, as half bytes (elements / 2, rounded up)."""
    return pack_gaps((integers.reshape(-1) + 8).astype(np.uint8))


def unhalved(packed: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The integers (elements) that `halved` was given, of a weight of this shape.

    Raises:
        ValueError: there are too few or too many.
    """
    count = math.prod(int(dim) for dim in shape)
    if packed.dtype != np.uint8 or len(packed) != -(-count // 2):
        raise ValueError(f"{len(packed)} bytes for {count} half bytes")
    return unpack_gaps(packed, count).astype(np.int8) - np.int8(8)


def halves(weight: np.ndarray, axis: int) -> np.ndarray | None:
    """The weight in fp16, or None where an output channel (along `axis`) would lose what matters of it.

    That is where a value overflows, or the channel's largest is below fp16's normal numbers; else no value is off
    by more than 2^-11 of its channel's largest, however small it is.
    """
    largest = _largest(weight, axis)
    with np.errstate(over="ignore"):
        rounded = weight.astype(np.float16)
    if not np.isfinite(rounded).all() or ((largest > 0) & (largest < SMALLEST_NORMAL_HALF)).any():
        return None
    return rounded


def quantize(weight: np.ndarray, axis: int, largest: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The weight as int8 of its shape and float32 scales, one for each output channel along `axis`.

    Symmetric, to nearest, and the largest of each channel is `largest`, up to 127. None where values are not finite, or
    a channel so small that a step of it is no normal float32.
    """
    most = _largest(weight, axis)
    scales = (most / largest).astype(np.float32)
    if not np.isfinite(scales).all() or ((most > 0) & (scales < np.finfo(np.float32).tiny)).any():
        return None
    divisors = on_axis(np.where(scales > 0, scales, 1), axis, weight.ndim)
    return np.rint(weight / divisors).astype(np.int8), scales


def quantize_again(weight: np.ndarray, axis: int, largest: int) -> tuple[np.ndarray, np.ndarray] | None:
    """As `quantize`, of a float32 weight that is integers times scales; None if no such ones give it exactly.

    That of the largest of a channel and `largest` is the scale, or a neighbor of it.
    """
    if weight.dtype != np.float32 or (found := quantize(weight, axis, largest)) is None:
        return None
    quantized, nearest = found
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scales, left = nearest.copy(), np.ones(len(nearest), bool)
    for scale in (nearest, *(np.nextafter(nearest, np.float32(end)) for end in (0, np.inf))):
        exact = left & (quantized * on_axis(scale, axis, weight.ndim) == weight).all(axis=others)
        scales[exact], left[exact] = scale[exact], False
        if not left.any():
            return quantized, scales
    return None


def dequantize(quantized: np.ndarray, gaps: np.ndarray, scales: np.ndarray, layout: np.ndarray) -> np.ndarray:
    """The float32 values (n) of int8 ones, (n) or (n, 1).

    `layout` is the number of channels and the elements from one to the next.

    Raises:
        ValueError: there are not as many scales as channels, or as many gaps as values.
    """
    channels, step = (int(number) for number in layout)
    if len(scales) != channels or step < 1:
        raise ValueError(f"{len(scales)} scales for {channels} channels of step {step}")
    positions = np.cumsum(gaps, dtype=np.int64) - 1
    return quantized.reshape(-1).astype(np.float32) * scales[positions // step % channels]


def _largest(weight: np.ndarray, axis: int) -> np.ndarray:
    """The largest magnitude of each output channel."""
    return np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis), initial=0)


def decode(
    values: np.ndarray, gaps: np.ndarray, shape: np.ndarray, name: str = "a sparse weight"
) -> np.ndarray:
    """The weight that `encode` was given, -0.0 as 0.0; `name` is what errors call it.

    Raises:
        ModelFileError: the arrays are no encoding: wrong dtypes, ranks or lengths, a gap of 0, an entry
            beyond the weight, or a shape that no memory holds.
    """
    if values.ndim != 1:
        raise _broken(name, "its values, gaps and shape are not one-dimensional")
    dims = check_places(gaps, shape, len(values), name)
    if (end := int(gaps.sum(dtype=np.int64))) > math.prod(dims):
        raise _broken(name, f"its last value is at position {end - 1} of {math.prod(dims)}")
    flat = new_array(dims, values.dtype, name).reshape(-1)
    flat[np.cumsum(gaps, dtype=np.int64) - 1] = values
    return flat.reshape(dims)


def check_places(gaps: np.ndarray, shape: np.ndarray, count: int, name: str) -> list[int]:
    """The shape as a list, where `gaps` and `shape` can belong to `count` values.

    Raises:
        ModelFileError: wrong dtypes, ranks or lengths, a gap of 0, or a negative dimension.
    """
    if gaps.dtype != np.uint8 or shape.dtype != np.int64:
        raise _broken(name, f"its gaps are {gaps.dtype} and its shape is {shape.dtype}, not uint8 and int64")
    if gaps.ndim != 1 or shape.ndim != 1:
        raise _broken(name, "its values, gaps and shape are not one-dimensional")
    if count != len(gaps):
        raise _broken(name, f"it has {count} values but {len(gaps)} gaps")
    dims = [int(dim) for dim in shape]
    if min(dims, default=0) < 0:
        raise _broken(name, f"its shape {dims} has a negative dimension")
    if not gaps.all():
        raise _broken(name, f"gap {int(np.argmin(gaps))} is 0, so two values claim one position")
    return dims


def new_array(dims: Sequence[int], dtype: np.dtype, name: str) -> np.ndarray:
    """Zeros of this shape.

    Raises:
        ModelFileError: no memory holds them.
    """
    try:
        return np.zeros(dims, dtype)
    except (MemoryError, OverflowError, ValueError):
        raise _broken(name, f"its shape {list(dims)} is larger than memory") from None


def _broken(name: str, what: str) -> ModelFileError:
    return ModelFileError(f"{name} cannot be decoded: {what}; write the model again with onnxprune")

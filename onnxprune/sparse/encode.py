"""The storage of a sparse weight: its non-zeros, and the gaps between them.

The weight is read flat, in C order. `gaps` holds the distance from one entry to the next as one byte, the
first counted from just before the weight, so that `positions = cumsum(gaps) - 1`. A distance above 255 is
bridged by fillers: entries of gap 255 and value 0.

    weight [0 0 7 0 0 0 9]  ->  values [7 9], gaps [3 4], shape [7]
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from onnxprune.errors import ModelFileError

MAX_GAP = 255
# Elements looked at in one go: fits a core's cache (3x faster than in one piece) and bounds the extra memory.
CHUNK = 1 << 18


class Encoded(NamedTuple):
    """A sparse weight: `values` (n) in the weight's dtype, `gaps` (n) uint8, `shape` (rank) int64."""

    values: np.ndarray
    gaps: np.ndarray
    shape: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.gaps.nbytes + self.shape.nbytes


def encoded_bytes(entries: int, itemsize: int, rank: int) -> int:
    """Bytes of a weight encoded in `entries` non-zeros and fillers, `itemsize` bytes a value."""
    return entries * (itemsize + 1) + rank * np.dtype(np.int64).itemsize


def encode(weight: np.ndarray) -> Encoded:
    """The non-zeros of `weight` (any shape and numeric dtype) and the gaps between them.

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
            chunk_values, chunk_gaps = _bridge(chunk[found], distances)
            values.append(chunk_values)
            gaps.append(chunk_gaps)
            last = start + int(found[-1])
    if not values:
        one_filler = min(flat.size, 1)
        return Encoded(np.zeros(one_filler, flat.dtype), np.ones(one_filler, np.uint8), shape)
    return Encoded(np.concatenate(values), np.concatenate(gaps), shape)


def _bridge(nonzeros: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and gaps of non-zeros at these distances, fillers put in: [7], [300] -> [0 7], [255 45]."""
    fillers = (distances - 1) // MAX_GAP
    if not fillers.any():
        return nonzeros, distances.astype(np.uint8)
    entries = np.cumsum(fillers + 1) - 1
    gaps = np.full(entries[-1] + 1, MAX_GAP, np.uint8)
    gaps[entries] = distances - MAX_GAP * fillers
    values = np.zeros(gaps.size, nonzeros.dtype)
    values[entries] = nonzeros
    return values, gaps


def decode(
    values: np.ndarray, gaps: np.ndarray, shape: np.ndarray, name: str = "a sparse weight"
) -> np.ndarray:
    """The weight that `encode` was given, -0.0 as 0.0; `name` is what errors call it.

    Raises:
        ModelFileError: the arrays are no encoding: wrong dtypes, ranks or lengths, a gap of 0, an entry
            beyond the weight, or a shape that no memory holds.
    """
    if gaps.dtype != np.uint8 or shape.dtype != np.int64:
        raise _broken(name, f"its gaps are {gaps.dtype} and its shape is {shape.dtype}, not uint8 and int64")
    if values.ndim != 1 or gaps.ndim != 1 or shape.ndim != 1:
        raise _broken(name, "its values, gaps and shape are not one-dimensional")
    if len(values) != len(gaps):
        raise _broken(name, f"it has {len(values)} values but {len(gaps)} gaps")
    dims = [int(dim) for dim in shape]
    size = math.prod(dims)
    if min(dims, default=0) < 0:
        raise _broken(name, f"its shape {dims} has a negative dimension")
    if not gaps.all():
        raise _broken(name, f"gap {int(np.argmin(gaps))} is 0, so two values claim one position")
    if (end := int(gaps.sum(dtype=np.int64))) > size:
        raise _broken(name, f"its last value is at position {end - 1} of {size}")
    try:
        flat = np.zeros(size, values.dtype)
    except (MemoryError, OverflowError, ValueError):
        raise _broken(name, f"its shape {dims} is larger than memory") from None
    flat[np.cumsum(gaps, dtype=np.int64) - 1] = values
    return flat.reshape(dims)


def _broken(name: str, what: str) -> ModelFileError:
    return ModelFileError(f"{name} cannot be decoded: {what}; write the model again with onnxprune")

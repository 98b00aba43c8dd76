"""The k-th smallest of many numbers, in two passes and little memory: no sort, and no copy to partition."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Numbers looked at in one go.
CHUNK = 1 << 18
_BUCKET_BITS = 16


def kth_smallest(values: np.ndarray, k: int) -> float:
    """The k-th smallest (from 1) of non-negative float32 or float64 numbers (n,).

    As integers, the bits of such numbers are in the numbers' order: the first 16 are counted, and only the numbers of
    the one bucket that holds the k-th are partitioned.
    """
    bits = values.view(f"u{values.itemsize}")
    shift = 8 * values.itemsize - _BUCKET_BITS
    counts = np.zeros(1 << _BUCKET_BITS, np.int64)
    for chunk in _chunks(bits):
        counts += np.bincount(chunk >> shift, minlength=len(counts))
    ends = np.cumsum(counts)
    bucket = int(np.searchsorted(ends, k))
    place = k - 1 - (int(ends[bucket - 1]) if bucket else 0)
    inside = np.concatenate([chunk[chunk >> shift == bucket] for chunk in _chunks(bits)])
    return np.partition(inside, place)[place : place + 1].view(values.dtype)[0]


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, array.size, CHUNK):
        yield array[start : start + CHUNK]

"""The k-th smallest of many numbers in two passes, without a sort or a copy of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Numbers processed at once.
CHUNK = 1 << 18
_BUCKET_BITS = 16


def kth_smallest(arrays: Sequence[np.ndarray], k: int) -> float:
    """The k-th smallest (from 1) of all numbers in the arrays: non-negative, all float32 or all float64.

    The bits of such numbers, read as integers, have the same order. A histogram of the first 16 bits finds the bucket
    of the k-th number, and only the numbers of that bucket are partitioned.
    """
    itemsize = arrays[0].itemsize
    bits = [array.reshape(-1).view(f"u{itemsize}") for array in arrays]
    shift = 8 * itemsize - _BUCKET_BITS
    counts = np.zeros(1 << _BUCKET_BITS, np.int64)
    for chunk in _chunks(bits):
        counts += np.bincount(chunk >> shift, minlength=len(counts))
    ends = np.cumsum(counts)
    bucket = int(np.searchsorted(ends, k))
    place = k - 1 - (int(ends[bucket - 1]) if bucket else 0)
    inside = np.concatenate([chunk[chunk >> shift == bucket] for chunk in _chunks(bits)])
    return np.partition(inside, place)[place : place + 1].view(arrays[0].dtype)[0]


def _chunks(arrays: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for array in arrays:
        for start in range(0, array.size, CHUNK):
            yield array[start : start + CHUNK]

"""Which of many scores stay: the largest of all, or of every few neighbours, as hardware wants it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.pruning.selection import CHUNK, kth_smallest


def keep_largest(scores: Sequence[np.ndarray], rate: float) -> list[np.ndarray]:
    """Masks (True = kept) of the arrays' shapes that cut exactly round(rate * n) of all n scores, as `make_masks`."""
    flat = np.concatenate([score.ravel() for score in scores]) if len(scores) > 1 else scores[0].ravel()
    lost = round(rate * flat.size)
    if lost:
        threshold = kth_smallest(flat, lost)
        kept = flat >= threshold
        _cut_first(kept, flat, threshold, lost - int(flat.size - np.count_nonzero(kept)))
    else:
        kept = np.ones(flat.size, dtype=bool)
    ends = np.cumsum([score.size for score in scores])
    return [part.reshape(score.shape) for part, score in zip(np.split(kept, ends[:-1]), scores, strict=True)]


def _cut_first(kept: np.ndarray, scores: np.ndarray, tied: float, count: int) -> None:
    """Cut the first `count` of the scores that equal `tied`."""
    for start in range(0, scores.size, CHUNK):
        if count <= 0:
            return
        ties = np.flatnonzero(scores[start : start + CHUNK] == tied)[:count]
        kept[start + ties] = False
        count -= len(ties)


def keep_n_of_m(scores: np.ndarray, n: int, m: int) -> np.ndarray:
    """A mask (True = kept) of the `n` largest scores in every `m` neighbours of a row, (rows, columns).

    Of a last group that is shorter, at most `n` stay too. Among equals those that come last stay.
    """
    rows, columns = scores.shape
    padded = np.full((rows, -(-columns // m) * m), -1.0)
    padded[:, :columns] = scores
    order = np.argsort(padded.reshape(rows, -1, m), axis=-1, kind="stable")
    mask = np.zeros(order.shape, bool)
    np.put_along_axis(mask, order[..., m - n :], True, axis=-1)
    return mask.reshape(rows, -1)[:, :columns]

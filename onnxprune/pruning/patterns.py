"""Masks from scores: the largest of all (unstructured), or the n largest of every m neighbors (N:M)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.pruning.selection import CHUNK, kth_smallest


def keep_largest(scores: Sequence[np.ndarray], rate: float) -> list[np.ndarray]:
    """Masks (True = kept) of the arrays' shapes that remove exactly round(rate * n) of all n scores, the lowest first.

    Among equal scores, the first are removed.
    """
    scores = [np.ascontiguousarray(score, np.result_type(*scores)) for score in scores]
    size = sum(score.size for score in scores)
    removed = round(rate * size)
    if not removed:
        return [np.ones(score.shape, dtype=bool) for score in scores]
    threshold = kth_smallest(scores, removed)
    kept = [score >= threshold for score in scores]
    excess = removed - (size - sum(int(np.count_nonzero(mask)) for mask in kept))
    for mask, score in zip(kept, scores, strict=True):
        excess -= _remove_ties(mask.reshape(-1), score.reshape(-1), threshold, excess)
    return kept


def _remove_ties(kept: np.ndarray, scores: np.ndarray, tied: float, count: int) -> int:
    """Remove the first `count` scores that equal `tied`, or all if there are fewer; returns their number."""
    removed = 0
    for start in range(0, scores.size, CHUNK):
        if removed == count:
            break
        ties = np.flatnonzero(scores[start : start + CHUNK] == tied)[: count - removed]
        kept[start + ties] = False
        removed += len(ties)
    return removed


def keep_n_of_m(scores: np.ndarray, n: int, m: int) -> np.ndarray:
    """A mask (True = kept) of the `n` largest scores of every `m` neighbors in a row, (rows, columns).

    A shorter last group keeps at most `n` too. Among equal scores, the last are kept.
    """
    rows, columns = scores.shape
    padded = np.full((rows, -(-columns // m) * m), -1.0)
    padded[:, :columns] = scores
    order = np.argsort(padded.reshape(rows, -1, m), axis=-1, kind="stable")
    mask = np.zeros(order.shape, bool)
    np.put_along_axis(mask, order[..., m - n :], True, axis=-1)
    return mask.reshape(rows, -1)[:, :columns]

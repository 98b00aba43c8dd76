"""Which of many scores stay: the largest of all, or of every few neighbors, as hardware wants it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.pruning.selection import CHUNK, kth_smallest


def keep_largest(scores: Sequence[np.ndarray], rate: float) -> list[np.ndarray]:
    """Masks (True = kept) of the arrays' shapes that cut exactly round(rate * n) of all n scores, as `make_masks`."""
    scores = [np.ascontiguousarray(score, np.result_type(*scores)) for score in scores]
    size = sum(score.size for score in scores)
    lost = round(rate * size)
    if not lost:
        return [np.ones(score.shape, dtype=bool) for score in scores]
    threshold = kth_smallest(scores, lost)
    kept = [score >= threshold for score in scores]
    excess = lost - (size - sum(int(np.count_nonzero(mask)) for mask in kept))
    for mask, score in zip(kept, scores, strict=True):
        excess -= _cut_first(mask.reshape(-1), score.reshape(-1), threshold, excess)
    return kept


def _cut_first(kept: np.ndarray, scores: np.ndarray, tied: float, count: int) -> int:
    """Cut the first `count` of the scores that equal `tied`, or all where there are fewer; how many it were."""
    cut = 0
    for start in range(0, scores.size, CHUNK):
        if cut == count:
            break
        ties = np.flatnonzero(scores[start : start + CHUNK] == tied)[: count - cut]
        kept[start + ties] = False
        cut += len(ties)
    return cut


def keep_n_of_m(scores: np.ndarray, n: int, m: int) -> np.ndarray:
    """A mask (True = kept) of the `n` largest scores in every `m` neighbors of a row, (rows, columns).

    Of a last group that is shorter, at most `n` stay too. Among equals those that come last stay.
    """
    rows, columns = scores.shape
    padded = np.full((rows, -(-columns // m) * m), -1.0)
    padded[:, :columns] = scores
    order = np.argsort(padded.reshape(rows, -1, m), axis=-1, kind="stable")
    mask = np.zeros(order.shape, bool)
    np.put_along_axis(mask, order[..., m - n :], True, axis=-1)
    return mask.reshape(rows, -1)[:, :columns]

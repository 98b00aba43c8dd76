"""Patterns of sparsity that hardware knows."""

from __future__ import annotations

import numpy as np


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

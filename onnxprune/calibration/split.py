"""Samples set apart: what is fitted to the others says nothing about them."""

from __future__ import annotations

import numpy as np

from onnxprune.data.batch import Batch


def split(data: Batch, of: int, most: int | None = None) -> tuple[Batch, Batch | None]:
    """Samples to fit to, and every `of`-th, at most `most`, to measure on: None where there are not more than `of`.

    Where the model fixes the size of a batch, whole ones are counted.
    """
    size = data.axes.size or 1
    batches = np.arange(len(data)) // size
    held = np.unique(batches)[of - 1 :: of]
    if len(data) // size <= of:
        return data, None
    apart = np.isin(batches, held if most is None else held[: max(1, most // size)])
    return data.take(np.flatnonzero(~apart)), data.take(np.flatnonzero(apart))

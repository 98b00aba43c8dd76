"""Residual streams that norms read: channels that several layers write and several read, and the norms count together.

Where one of them leaves, what is left of all others is normalized otherwise.
"""

from __future__ import annotations

import numpy as np

from onnxprune.surgery.units import Units


def normed_streams(units: Units) -> np.ndarray:
    """Whether a group is of such a stream, bool by group number."""
    writers, readers, sums = (np.zeros(len(units.all_groups()), np.int64) for _ in range(3))
    for contraction in units.contractions:
        alone = contraction.weight == contraction.data
        for counts, axis in ((sums if alone else readers, contraction.data), (writers, contraction.out)):
            if axis is not None and axis in units:
                counts[np.unique(units.groups(axis))] += 1
    return (writers > 1) & (readers > 1) & (sums > 0)

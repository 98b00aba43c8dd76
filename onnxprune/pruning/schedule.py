"""The way to the rate in several steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxprune.pruning.allocation import Pool


def partial_rate(rate: float, part: float) -> float:
    """The rate at a part (0 to 1) of the way: equal parts remove equal fractions of what is left.

    So does repeated pruning by a fixed share (Han et al. 2015, section 3.4).
    """
    return rate if part == 1 else 1 - (1 - rate) ** part


def partial_pools(pools: Sequence[Pool], part: float) -> list[Pool]:
    """The pools at a part of the way; thresholds grow in proportion to it."""
    return [
        replace(
            pool,
            rate=None if pool.rate is None else partial_rate(pool.rate, part),
            quality=None if pool.quality is None else pool.quality * part,
        )
        for pool in pools
    ]

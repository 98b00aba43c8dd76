"""The way to the rate in several steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from onnxprune.pruning.allocation import Pool


def iterate(pools: Sequence[Pool], steps: int) -> Iterator[list[Pool]]:
    """The pools of each step; the last are those asked for.

    Every step removes the same fraction of what is left, 1 - (1 - rate) ** (step / steps), as repeated pruning by
    a fixed share does (Han et al. 2015, section 3.4); thresholds grow in equal steps.
    """
    for step in range(1, steps + 1):
        part = step / steps
        yield [
            pool
            if step == steps
            else replace(
                pool,
                rate=None if pool.rate is None else 1 - (1 - pool.rate) ** part,
                quality=None if pool.quality is None else pool.quality * part,
            )
            for pool in pools
        ]

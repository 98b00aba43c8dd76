"""The progress of a stage, made of the progress of its parts."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float], None]
"""Called with the fraction that is done."""


def part_of(progress: Progress, done: float, share: float) -> Progress:
    """The progress of a part that has this share of the whole, of which so much is done before it."""
    return lambda fraction: progress(done + share * fraction)

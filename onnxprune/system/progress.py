"""Who is told how far a job is: of one stage, or of each by its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

Item = TypeVar("Item")

Progress = Callable[[float], None]
"""Called with the fraction that is done."""
StageProgress = Callable[[str, float], None]
"""Called with a stage's name and the fraction of it that is done."""


def part_of(progress: Progress, done: float, share: float) -> Progress:
    """The progress of a part that has this share of the whole, of which so much is done before it."""
    return lambda fraction: progress(done + share * fraction)


def along(items: Collection[Item], progress: Progress) -> Iterator[Item]:
    """The items, and before each of them, the fraction of them that is done."""
    for done, item in enumerate(items):
        progress(done / len(items))
        yield item

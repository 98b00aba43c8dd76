"""Independent parts of a job: performed in turn in this process, or at once by workers here or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeVar

from onnxprune.system.progress import StageProgress

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Outcome = TypeVar("Outcome")
Part = Callable[[Shared, Item, StageProgress], Outcome]
"""One part of a job, a function of a module: of what all parts share, its own item, and the progress.

It may be started again if it is cut short, so it must have the same effect when it is run twice.
"""


class Workers(Protocol):
    """Who performs the parts of a job."""

    count: int
    """How many are performed at once."""
    here: bool
    """Whether all of them are on this machine, so that they can read and write its files."""

    def perform(
        self,
        part: Part[Shared, Item, Outcome],
        shared: Shared,
        items: Sequence[Item],
        progress: StageProgress,
        arrived: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Generator[Outcome]:
        """The outcome of each item, in order; closing the iterator cancels those that have not been yielded.

        `arrived`: called with each outcome as soon as it is known, in any order.

        Raises:
            OnnxPruneError: what the part of an item raises, in the place of its outcome.
            WorkerError: the worker of one item was lost repeatedly.
        """
        ...


class InTurn:
    """Performs one part after the other, in this process; a part is not begun before its outcome is asked for."""

    count = 1
    here = True

    def perform(
        self,
        part: Part[Shared, Item, Outcome],
        shared: Shared,
        items: Sequence[Item],
        progress: StageProgress,
        arrived: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Generator[Outcome]:
        """See `Workers`."""
        for item in items:
            outcome = part(shared, item, progress)
            arrived(outcome)
            yield outcome

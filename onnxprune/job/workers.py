"""Independent parts of a job: performed in turn in this process, or at once by workers here or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from onnxprune.config.workers import parse_workers
from onnxprune.job.result import Progress

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Outcome = TypeVar("Outcome")
Part = Callable[[Shared, Item, Progress], Outcome]
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
        progress: Progress,
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
        progress: Progress,
        arrived: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Generator[Outcome]:
        """See `Workers`."""
        for item in items:
            outcome = part(shared, item, progress)
            arrived(outcome)
            yield outcome


@contextmanager
def workers(place: Any, device: str = "cpu", most: int | None = None) -> Iterator[Workers]:
    """The workers that --workers asks for, until the context is left.

    `device`: what they train on; each gets a GPU of its own if there are enough of them. `most`: the number of
    processes on this machine that there is work for.

    Raises:
        MissingPackageError: they need Ray, which is not installed.
        SettingError: there is no such cluster, it has no GPU, or other versions of Python, Ray or onnxprune.
    """
    place = parse_workers(place)
    if isinstance(place, int):
        place = min(place, most or place)
    if place == 1:
        yield InTurn()
        return
    from onnxprune.job.ray_workers import ray_workers

    with ray_workers(place, device) as found:
        yield found

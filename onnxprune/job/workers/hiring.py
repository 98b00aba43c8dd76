"""The workers that a job asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from onnxprune.config.workers import parse_workers
from onnxprune.job.workers.pool import InTurn, Workers
from onnxprune.job.workers.ray_pool import ray_workers


@contextmanager
def hired(place: Any, device: str = "cpu", most: int | None = None) -> Iterator[Workers]:
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
    with ray_workers(place, device) as found:
        yield found

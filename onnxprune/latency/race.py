"""One row of a table: some engines on one model, checked against dense onnxruntime, then timed in turns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from onnxprune.errors import SettingError
from onnxprune.latency.engines import EngineError, Feeds, Memory, Worker
from onnxprune.runtime.timing import take_turns, typical

BURST_SECONDS = 0.02
TURNS = 9


@dataclass(frozen=True)
class Entrant:
    """An engine's process, and the file that it runs; `own`: it is ours, and a wrong result ends the bench."""

    worker: Worker
    path: Path
    own: bool = False


@dataclass
class Row:
    """What a race found, by the entrant's name: seconds a run, times faster than dense, and who did not take part.

    `loads` are seconds until the model was open, `memory` the bytes of the process before and after, `bytes`
    those of the file, `runs` the seconds of every run.
    """

    name: str
    density: float | None
    threads: int
    seconds: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    loads: dict[str, float] = field(default_factory=dict)
    memory: dict[str, tuple[Memory, Memory]] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    runs: dict[str, list[float]] = field(default_factory=dict)


def race(
    name: str,
    density: float | None,
    threads: int,
    entrants: Mapping[str, Entrant],
    feeds: Feeds,
    *,
    tolerance: float,
    references: Mapping[str, str] | None = None,
    turns: int = TURNS,
) -> Row:
    """Load, check and time; the first entrant is dense onnxruntime, which the others are held against.

    `references` names another entrant than the first to compare an entrant's outputs with; `tolerance` is relative to
    the largest output.

    Raises:
        SettingError: an entrant of our own gives other outputs than its reference.
    """
    row = Row(name, density, threads)
    outputs: dict[str, list[np.ndarray]] = {}
    first = next(iter(entrants))
    for entrant, each in entrants.items():
        try:
            row.bytes[entrant] = each.path.stat().st_size
            before = each.worker.memory()
            row.loads[entrant] = each.worker.load(each.path, threads, feeds)
            row.memory[entrant] = before, each.worker.memory()
            outputs[entrant] = each.worker.outputs()
        except EngineError as refusal:
            if each.own or entrant == first:
                raise
            row.failures[entrant] = str(refusal)
            continue
        reference = (references or {}).get(entrant, first)
        error = difference(outputs[entrant], outputs[reference])
        if not error <= tolerance:
            message = f"{name}: {entrant} is off by {error:.1e} of the largest output of {reference}"
            if each.own:
                raise SettingError(message)
            row.failures[entrant] = message
    racing = [entrant for entrant in entrants if entrant not in row.failures]
    bursts = [
        partial(_burst, entrants[entrant].worker, row.runs.setdefault(entrant, [])) for entrant in racing
    ]
    times = dict(zip(racing, take_turns(bursts, turns), strict=True))
    for entrant in racing:
        timing = typical(times[first], times[entrant])
        row.seconds[entrant], row.ratios[entrant] = timing.other, timing.ratio
    return row


def difference(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest difference of any output, of that output's largest value; infinite where shapes differ."""
    if [array.shape for array in got] != [array.shape for array in expected]:
        return float("inf")
    return max(
        float(np.abs(mine - theirs).max(initial=0) / (np.abs(theirs).max(initial=0) or 1))
        for mine, theirs in zip(got, expected, strict=True)
    )


def _burst(worker: Worker, runs: list[float]) -> float:
    times = worker.runs(BURST_SECONDS)
    runs += times
    return statistics.median(times)

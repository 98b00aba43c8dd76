"""One row of a benchmark: several engines on one model, checked against dense onnxruntime, then timed alternately."""

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
ROUNDS = 9


@dataclass(frozen=True)
class Entrant:
    """An engine's process, and the file that it runs; `own`: onnxprune's engine, whose errors stop the benchmark.

    `feeds` and `tolerance`, where they are not those of the race.
    """

    worker: Worker
    path: Path
    own: bool = False
    feeds: Feeds | None = None
    tolerance: float | None = None


@dataclass
class Row:
    """The results of a race, by the name of the entrant.

    `seconds`: per run; `ratios`: speedup over dense; `failures`: why an entrant was not timed; `loads`: seconds to load
    the model; `memory`: of the process before and after loading; `bytes`: of the file; `runs`: seconds of every run.
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
    rounds: int = ROUNDS,
) -> Row:
    """Load, check and time all entrants; the first is dense onnxruntime, whose outputs the others must reproduce.

    `references`: for an entrant, the name of another one whose outputs it must reproduce. `tolerance`: relative to the
    largest output.

    Raises:
        SettingError: the outputs of onnxprune's own engine are wrong.
    """
    row = Row(name, density, threads)
    outputs: dict[str, list[np.ndarray]] = {}
    first = next(iter(entrants))
    for entrant, each in entrants.items():
        try:
            row.bytes[entrant] = each.path.stat().st_size
            before = each.worker.memory()
            row.loads[entrant] = each.worker.load(
                each.path, threads, feeds if each.feeds is None else each.feeds
            )
            row.memory[entrant] = before, each.worker.memory()
            outputs[entrant] = each.worker.outputs()
        except EngineError as refusal:
            if each.own or entrant == first:
                raise
            row.failures[entrant] = str(refusal)
            continue
        reference = (references or {}).get(entrant, first)
        if reference not in outputs:
            row.failures[entrant] = f"there are no outputs of {reference} to compare with"
            continue
        error = difference(outputs[entrant], outputs[reference])
        if not error <= (tolerance if each.tolerance is None else each.tolerance):
            message = f"{name}: the outputs of {entrant} differ from those of {reference} by {error:.1e} of the largest"
            if each.own:
                raise SettingError(message)
            row.failures[entrant] = message
    racing = [entrant for entrant in entrants if entrant not in row.failures]
    bursts = [
        partial(_burst, entrants[entrant].worker, row.runs.setdefault(entrant, [])) for entrant in racing
    ]
    times = dict(zip(racing, take_turns(bursts, rounds), strict=True))
    for entrant in racing:
        timing = typical(times[first], times[entrant])
        row.seconds[entrant], row.ratios[entrant] = timing.other, timing.ratio
    return row


def difference(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest difference of any output, relative to its largest value; infinite if the shapes differ."""
    if [array.shape for array in got] != [array.shape for array in expected]:
        return float("inf")
    return max(
        float(
            np.abs(np.subtract(array, other, dtype=np.float64)).max(initial=0)
            / (np.abs(other, dtype=np.float64).max(initial=0) or 1)
        )
        for array, other in zip(got, expected, strict=True)
    )


def _burst(worker: Worker, runs: list[float]) -> float:
    times = worker.runs(BURST_SECONDS)
    runs += times
    return statistics.median(times)

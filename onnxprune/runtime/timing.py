"""Latency by turns: runs that are compared take turns, so that a slow spell of the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnxruntime as ort

LOG_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Timing:
    """Two ways to the same result, in seconds a run; `ratio` is how many times `other` is faster than `dense`."""

    dense: float
    other: float
    ratio: float


def burst(run: Callable[[], object], seconds: float) -> float:
    """Seconds a run takes, over as many runs as fit into `seconds`, one at least."""
    runs, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not runs:
        run()
        runs += 1
    return elapsed / runs


def take_turns(bursts: Sequence[Callable[[], float]], turns: int) -> list[list[float]]:
    """The results of each burst (seconds a run), turn by turn: one list for each burst, `turns` long."""
    rows = [[one() for one in bursts] for _ in range(turns)]
    return [list(column) for column in zip(*rows, strict=True)]


def typical(dense: Sequence[float], other: Sequence[float]) -> Timing:
    """Medians over the bursts of `take_turns`; the ratio is the median of the turns' ratios. For reports."""
    ratios = [slow / fast for slow, fast in zip(dense, other, strict=True)]
    return Timing(statistics.median(dense), statistics.median(other), statistics.median(ratios))


def fastest(dense: Sequence[float], other: Sequence[float]) -> Timing:
    """Minima over the bursts, and their ratio: what a busy machine disturbs least. For choices."""
    return Timing(min(dense), min(other), min(dense) / min(other))


def session_options(threads: int = 0) -> ort.SessionOptions:
    """Options for sessions that take turns; 0 threads: as many as onnxruntime takes by itself."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = LOG_ERRORS_ONLY
    # Threads that waited for more work would take the cores from the session whose turn it is.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options

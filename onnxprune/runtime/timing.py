"""Interleaved timing: compared runs alternate, so that a slow phase of the machine affects all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnxruntime as ort

LOG_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Timing:
    """Seconds per run of two alternatives; `ratio` is the speedup of `other` over `dense`."""

    dense: float
    other: float
    ratio: float


def burst(run: Callable[[], object], seconds: float) -> float:
    """Mean seconds per run over as many runs as fit into `seconds`, at least one."""
    runs, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not runs:
        run()
        runs += 1
    return elapsed / runs


def quickest(run: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest of as many runs as fit into `seconds`, at least one; a busy machine delays the others."""
    best, begun = math.inf, time.perf_counter()
    while best is math.inf or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def take_turns(bursts: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Run all bursts one after the other, `rounds` times; returns the seconds per run of each burst, by round."""
    rows = [[one() for one in bursts] for _ in range(rounds)]
    return [list(column) for column in zip(*rows, strict=True)]


def typical(dense: Sequence[float], other: Sequence[float]) -> Timing:
    """Medians over the rounds of `take_turns`; the ratio is the median of the ratios of each round. For reports."""
    ratios = [slow / fast for slow, fast in zip(dense, other, strict=True)]
    return Timing(statistics.median(dense), statistics.median(other), statistics.median(ratios))


def fastest(dense: Sequence[float], other: Sequence[float]) -> Timing:
    """Minima over the rounds, and their ratio: least affected by other load on the machine. For choices."""
    return Timing(min(dense), min(other), min(dense) / min(other))


def session_options(threads: int = 0) -> ort.SessionOptions:
    """Options for sessions that are timed in turns; 0 threads: the choice of onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = LOG_ERRORS_ONLY
    # Threads that spin while they wait for work would take cores from the session that is being timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options

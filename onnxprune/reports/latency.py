"""Latency of the baseline and the pruned model on this machine, for the report, measured within a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from onnxprune import runtime
from onnxprune.data.random import random_feeds
from onnxprune.data.specs import input_specs
from onnxprune.errors import OnnxPruneError, first_line
from onnxprune.model.files.io import load
from onnxprune.model.files.sessions import open_session
from onnxprune.runtime.cpu import cpu_name
from onnxprune.runtime.timing import burst, session_options, take_turns, typical
from onnxprune.system.rapl import EnergyCounters

BASELINE, STOCK, KERNELS = "baseline", "pruned, stock onnxruntime", "pruned, sparse kernels"
MEASURED = "milliseconds", "speedup", "cpu_milliseconds", "joules"
# For all rounds together; slow models get fewer rounds, fast ones longer bursts.
SECONDS = 3.0
MOST_ROUNDS, FEWEST_ROUNDS = 9, 2


def latency(baseline: Path, pruned: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Latency of both models on random inputs of these shapes: `milliseconds` per run, and `speedup` over the baseline.

    Beside them are `cpu_milliseconds`, of all threads, and `joules` of a run, which is empty where the counters of the
    processor cannot be read. If latency cannot be measured, `reason` says why and these are empty.
    """
    found: dict[str, Any] = {"machine": cpu_name(), "reason": ""} | {name: {} for name in MEASURED}
    try:
        feeds = random_feeds(input_specs(load(baseline)[0]), shapes)
        kernels = runtime.available()
        variants = {BASELINE: (baseline, False), STOCK: (pruned, False)}
        if kernels:
            variants[KERNELS] = (pruned, True)
        else:
            found["reason"] = kernels.reason
        runs = {name: _run(path, with_kernels, feeds) for name, (path, with_kernels) in variants.items()}
        meters = {name: _Meter(run) for name, run in runs.items()}
        times = dict(zip(runs, _interleaved(list(meters.values())), strict=True))
    except OnnxPruneError as error:
        return found | {"reason": str(error)}
    except Exception as error:  # the exceptions of onnxruntime have no common base class
        return found | {"reason": first_line(error)}
    for name, seconds in times.items():
        timing = typical(times[BASELINE], seconds)
        found["milliseconds"][name] = timing.other * 1e3
        # Of the two numbers that are shown; the median of the rounds' ratios can contradict them on a busy machine.
        found["speedup"][name] = timing.dense / timing.other
        found["cpu_milliseconds"][name] = meters[name].cpu_seconds / meters[name].runs * 1e3
        if meters[name].counters.available:
            found["joules"][name] = meters[name].joules / meters[name].runs
    return found


def _run(path: Path, kernels: bool, feeds: Mapping[str, Any]) -> Callable[[], object]:
    session = open_session(path, session_options(), kernels=kernels)
    return partial(session.run, None, dict(feeds))


class _Meter:
    """The CPU time, energy and number of the runs of one model, in all of its bursts."""

    def __init__(self, run: Callable[[], object]):
        self.run = run
        self.counters = EnergyCounters()
        self.cpu_seconds = self.joules = 0.0
        self.runs = 0

    def burst(self, seconds: float) -> float:
        """As the function of this name."""
        before, cpu = self.counters.read(), time.process_time()
        mean = burst(self._counted, seconds)
        self.cpu_seconds += time.process_time() - cpu
        self.joules += self.counters.joules(before, self.counters.read())
        return mean

    def _counted(self) -> None:
        self.run()
        self.runs += 1


def _interleaved(meters: Sequence[_Meter]) -> list[list[float]]:
    """Seconds per run of each, by round."""
    start = time.perf_counter()
    for meter in meters:
        meter.run()
    once = time.perf_counter() - start
    rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(SECONDS / once)))
    each = SECONDS / rounds / len(meters)
    return take_turns([partial(meter.burst, each) for meter in meters], rounds)

"""Latency of a model before and after on this machine, in turns: for the report, within a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from onnxprune import runtime
from onnxprune.data.random import random_feeds
from onnxprune.data.specs import input_specs
from onnxprune.errors import OnnxPruneError, first_line
from onnxprune.model.io import load
from onnxprune.runtime.cpu import cpu_name
from onnxprune.runtime.timing import burst, session_options, take_turns, typical

BEFORE, STOCK, KERNELS = "before", "after, stock onnxruntime", "after, our kernels"
# For all turns together; slow models get fewer turns, fast ones longer bursts.
SECONDS = 3.0
MOST_TURNS, FEWEST_TURNS = 9, 2


def latency(before: Path, after: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Milliseconds of a run on random inputs of these shapes, by what runs; `times` how many times faster than before.

    Where it cannot be measured, `reason` says why and `milliseconds` is empty.
    """
    found: dict[str, Any] = {"machine": cpu_name(), "milliseconds": {}, "times": {}, "reason": ""}
    try:
        feeds = random_feeds(input_specs(load(before)[0]), shapes)
        kernels = runtime.available()
        entrants = {BEFORE: (before, False), STOCK: (after, False)}
        if kernels:
            entrants[KERNELS] = (after, True)
        else:
            found["reason"] = kernels.reason
        runs = {name: _run(path, ours, feeds) for name, (path, ours) in entrants.items()}
        times = dict(zip(runs, _turns(list(runs.values())), strict=True))
    except OnnxPruneError as error:
        return found | {"reason": str(error)}
    except Exception as error:  # onnxruntime's own have no common class
        return found | {"reason": first_line(error)}
    for name, seconds in times.items():
        timing = typical(times[BEFORE], seconds)
        found["milliseconds"][name] = timing.other * 1e3
        found["times"][name] = timing.ratio
    return found


def _run(path: Path, kernels: bool, feeds: Mapping[str, Any]) -> Callable[[], object]:
    options = session_options()
    if kernels:
        runtime.register(options)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, dict(feeds))


def _turns(runs: Sequence[Callable[[], object]]) -> list[list[float]]:
    """Seconds a run of each, turn by turn."""
    start = time.perf_counter()
    for run in runs:
        run()
    once = time.perf_counter() - start
    turns = max(FEWEST_TURNS, min(MOST_TURNS, int(SECONDS / once)))
    each = SECONDS / turns / len(runs)
    return take_turns([partial(burst, run, each) for run in runs], turns)

"""Whole models without half of their weights, in whole channels: python -m tests.benchmarks.channels [NAME ...]

Parameters and multiply-adds left, latency in stock onnxruntime, pruned / baseline (one thread, runs interleaved,
medians), and the largest difference from the model with the same channels at zero, relative to the largest output
(before a last Softmax or Sigmoid).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import onnx

from tests.surgery.channel_pruning import prune_channels, random_inputs, session
from tests.surgery.whole_models import MODELS, MissingPackageError, Whole

ROUNDS = 15


def latency_ratio(whole: Whole, pruned: onnx.ModelProto) -> float:
    """The median latency of the pruned model / that of the whole one."""
    sessions = [session(model) for model in (whole[0], pruned)]
    inputs = random_inputs(sessions[0], whole[1])
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for each, own in zip(sessions, times, strict=True):
            start = time.perf_counter()
            each.run(None, inputs)
            own.append(time.perf_counter() - start)
    return float(np.median(times[1]) / np.median(times[0]))


def table(names: list[str]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| model | parameters left | multiply-adds left | latency | with --round-to 8 | largest difference |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        try:
            whole = MODELS[name]()
            row, rounded = prune_channels(whole), prune_channels(whole, round_to=8)
            latencies = [latency_ratio(whole, each.model) for each in (row, rounded)]
        except MissingPackageError as missing:
            yield f"| {name} | left out: {missing} | | | | |"
            continue
        yield (
            f"| {name} | {row.parameters_after / row.parameters_before:.0%} of {row.parameters_before / 1e6:.2f} M "
            f"| {row.multiply_adds_after / row.multiply_adds_before:.0%} of {row.multiply_adds_before / 1e6:,.0f} M "
            f"| {latencies[0]:.2f}x | {latencies[1]:.2f}x | {row.difference:.0e} |"
        )


if __name__ == "__main__":
    for line in table(sys.argv[1:] or list(MODELS)):
        print(line, flush=True)

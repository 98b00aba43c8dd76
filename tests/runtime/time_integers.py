"""Times of whole networks, one thread: dense, dense int8, and int8 with sparse nodes; and where the time goes.

python -m tests.runtime.time_integers [--density 0.2] [--threads 1] [NETWORK.onnx ...]

ResNet-50 and the MiniLM encoder of the models suite, and the models given, pruned in 1x4 blocks by magnitude in one
shot. In CPU time of the calling thread, 20th percentiles of runs that take turns; with several threads, in elapsed
time. The operators' times are those of onnxruntime's profiler.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxprune import runtime
from onnxprune.latency import integers
from onnxprune.latency.models import prepare
from onnxprune.latency.networks import NETWORKS, Network
from onnxprune.pruning.blocks import BLOCK_PATTERNS
from onnxprune.runtime.timing import session_options, take_turns
from onnxprune.sparse.choose import choose_portable

SUITE = ("ResNet-50, 10 %", "MiniLM encoder, 10 %")
ROUNDS = 20
RUNS = 3
PROFILED_RUNS = 30
PERCENTILE = 20


def networks(paths: list[str]) -> dict[str, Network]:
    found = {name.partition(",")[0]: NETWORKS[name] for name in SUITE}
    for path in paths:
        model = onnx.load(path)
        (x,) = model.graph.input
        shape = tuple(max(dim.dim_value, 1) for dim in x.type.tensor_type.shape.dim)
        found[Path(path).stem] = Network(partial(onnx.load, path), {x.name: shape}, 1.0)
    return found


def files(network: Network, density: float, folder: Path) -> tuple[dict[str, Path], dict[str, np.ndarray]]:
    prepared = prepare(replace(network, densities=density), BLOCK_PATTERNS["1x4"])
    dense, sparse = integers.quantize(prepared.dense, prepared.feeds)
    choose_portable(sparse, prepared.feeds)
    paths = {}
    for name, model in {"dense": prepared.dense, "dense int8": dense, "sparse int8": sparse}.items():
        paths[name] = folder / f"{name}.onnx"
        onnx.save(ir.to_proto(model), paths[name])
    return paths, dict(prepared.feeds)


def seconds(session: ort.InferenceSession, feeds: dict[str, np.ndarray], clock, runs: list[float]) -> float:
    for _ in range(RUNS):
        start = clock()
        session.run(None, feeds)
        runs.append(clock() - start)
    return runs[-1]


def operators(path: Path, feeds: dict[str, np.ndarray]) -> Counter:
    """Milliseconds of each operator in a run, all its nodes together."""
    options = session_options(1)
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = runtime.session(path, options)
    for _ in range(PROFILED_RUNS):
        session.run(None, feeds)
    times = defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"], event["args"]["op_name"]].append(event["dur"] / 1000)
    total: Counter = Counter()
    for (_, op_type), each in times.items():
        total[op_type] += float(np.percentile(each, PERCENTILE))
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("models", nargs="*")
    settings = parser.parse_args()
    for name, network in networks(settings.models).items():
        with tempfile.TemporaryDirectory() as folder:
            paths, feeds = files(network, settings.density, Path(folder))
            raced = [runtime.session(path, session_options(settings.threads)) for path in paths.values()]
            stock = ort.InferenceSession(
                paths["sparse int8"], session_options(settings.threads), providers=runtime.CPU
            )
            raced.append(stock)
            outputs = [session.run(None, feeds)[0] for session in raced[1:]]
            assert all(np.array_equal(each, outputs[0]) for each in outputs)
            clock = time.thread_time if settings.threads == 1 else time.perf_counter
            runs: list[list[float]] = [[] for _ in raced]
            take_turns(
                [
                    partial(seconds, session, feeds, clock, own)
                    for session, own in zip(raced, runs, strict=True)
                ],
                ROUNDS,
            )
            times = [1000 * float(np.percentile(own, PERCENTILE)) for own in runs]
            labels = [*paths, "sparse int8 in stock onnxruntime"]
            print(name, {label: f"{ms:.2f} ms" for label, ms in zip(labels, times, strict=True)})
            print(
                f"  sparse int8 over dense int8 {times[1] / times[2]:.2f}, over dense {times[0] / times[2]:.2f}"
            )
            for label in ("dense int8", "sparse int8"):
                shares = operators(paths[label], feeds).most_common(8)
                print(f"  {label}:", ", ".join(f"{op_type} {ms:.2f}" for op_type, ms in shares), flush=True)


if __name__ == "__main__":
    main()

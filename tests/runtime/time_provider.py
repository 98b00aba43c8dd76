"""Times one thread takes: dense, by the operators of the ops format, and by the execution provider from the dense file.

python -m tests.runtime.time_provider

In CPU time, medians over rounds in which all take turns, so that other work on the machine matters little.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

import onnxprune
from onnxprune import runtime
from onnxprune.latency.layers import LAYERS, layer_model
from onnxprune.runtime.timing import session_options, take_turns
from tests.runtime.sessions import assert_close
from tests.sparse.graphs import sparse

MODELS = Path(__file__).parents[2] / "models"
NETWORKS = ("lenet-300-100", "lenet-5", "resnet-20")
SINGLE = ("Conv 3x3 256->256 at 28x28", "MatMul 128x768x3072")
DENSITY = 0.1
ROUNDS = 60
BURST_SECONDS = 0.03


def files(name: str, folder: Path) -> tuple[Path, Path]:
    """The pruned model with zeros in place and in the ops format."""
    dense, ops = folder / "dense.onnx", folder / "ops.onnx"
    if name in NETWORKS:
        for path, form in ((dense, "dense"), (ops, "ops")):
            onnxprune.prune(MODELS / f"{name}.onnx", path, rate=1 - DENSITY, format=form)
    else:
        model = layer_model(next(layer for layer in LAYERS if layer.name == name), DENSITY, None)
        onnx.save(model, dense)
        onnx.save(sparse(model)[0], ops)
    return dense, ops


def sessions(dense: Path, ops: Path) -> dict[str, ort.InferenceSession]:
    made = {
        "dense": ort.InferenceSession(dense, session_options(1), providers=["CPUExecutionProvider"]),
        "ops file": runtime.session(ops, session_options(1)),
        "provider": runtime.session(dense, session_options(1), provider=True),
    }
    everything = session_options(1)
    runtime.add_provider(everything, "all")
    return made | {"provider, kernels: all": ort.InferenceSession(dense, everything)}


def cpu_seconds(session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> float:
    """Of the calling thread, which is the only one that computes, a run."""
    runs, start, cpu = 0, time.perf_counter(), time.thread_time()
    while time.perf_counter() - start < BURST_SECONDS or not runs:
        session.run(None, feeds)
        runs += 1
    return (time.thread_time() - cpu) / runs


def race(sessions: Iterable[ort.InferenceSession], rounds: int) -> list[list[float]]:
    """The CPU seconds of a run of each session in each round, after a check that they give what the first one does."""
    raced = list(sessions)
    (x,) = raced[0].get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in x.shape]
    feeds = {x.name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
    expected = raced[0].run(None, feeds)[0]
    for session in raced:
        assert_close(session.run(None, feeds)[0], expected)
    return take_turns([partial(cpu_seconds, session, feeds) for session in raced], rounds)


def main() -> None:
    for name in (*NETWORKS, *SINGLE):
        with tempfile.TemporaryDirectory() as folder:
            raced = sessions(*files(name, Path(folder)))
        rows = race(raced.values(), ROUNDS)
        ratios = [statistics.median(d / r for d, r in zip(rows[0], row, strict=True)) for row in rows]
        text = ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in zip(raced, ratios, strict=True))
        print(f"{name}: dense {1000 * statistics.median(rows[0]):.3f} ms; {text}", flush=True)


if __name__ == "__main__":
    main()

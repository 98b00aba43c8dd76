"""Latency side by side: onnxruntime's dense kernels and the sparse ones, layer by layer.

Protocol: both sessions live in one process and run in turns, each for a burst at a time, so that a slow spell of the
machine hits both; a row's figures are medians over the bursts, its ratio the median of the bursts' ratios. Weights
and inputs are warm. Before it is timed, every row's output is compared with the dense one.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from rich.table import Table

from onnxprune import runtime
from onnxprune.errors import SettingError
from onnxprune.model.weights import find_weights
from onnxprune.sparse.rewrite import to_ops

DENSITIES = (0.02, 0.04, 0.10, 0.20, 0.30)
BURST_SECONDS = 0.02
BURSTS = 9
# Of the largest output; the order of a sum's terms differs from dense.
TOLERANCE = 1e-5
OPSET = 17


@dataclass(frozen=True)
class Layer:
    """One operator with a weight: `x` and `weight` are shapes, `attributes` those of the operator."""

    name: str
    op_type: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    attributes: tuple[tuple[str, int | list[int]], ...] = ()


def _conv(outputs: int, inputs: int, kernel: int, side: int, stride: int = 1) -> Layer:
    return Layer(
        f"Conv {kernel}x{kernel} {inputs}->{outputs} at {side}x{side}"
        + (f" /{stride}" if stride > 1 else ""),
        "Conv",
        (1, inputs, side, side),
        (outputs, inputs, kernel, kernel),
        (("pads", [kernel // 2] * 4), ("strides", [stride] * 2)),
    )


def _gemm(batch: int, inputs: int, outputs: int) -> Layer:
    return Layer(
        f"Gemm {batch}x{inputs}x{outputs}", "Gemm", (batch, inputs), (outputs, inputs), (("transB", 1),)
    )


# The shapes of ResNet-50, VGG-16, BERT and AlexNet that most of their time goes to.
LAYERS = (
    Layer("MatMul 128x768x3072", "MatMul", (128, 768), (768, 3072)),
    _conv(64, 64, 3, 56),
    _conv(128, 128, 3, 56),
    _conv(128, 128, 3, 28),
    _conv(256, 256, 3, 28),
    _conv(512, 512, 3, 14),
    _conv(512, 512, 3, 7),
    _conv(64, 256, 1, 56),
    _conv(256, 1024, 1, 14),
    _conv(1024, 256, 1, 14),
    _conv(2048, 512, 1, 7),
    _conv(256, 128, 3, 28, stride=2),
    _gemm(1, 4096, 4096),
    _gemm(8, 4096, 4096),
    _gemm(64, 4096, 4096),
    _gemm(1, 25088, 4096),
)


@dataclass(frozen=True)
class LayerTime:
    """Latency of a layer: `dense` and `sparse` in seconds, `ratio` is how many times sparse is faster."""

    layer: str
    density: float
    threads: int
    dense: float
    sparse: float
    ratio: float


def bench_layers(
    layers: Iterable[Layer] = LAYERS, densities: Sequence[float] = DENSITIES, threads: Sequence[int] = (1, 2)
) -> Iterator[LayerTime]:
    """Time each layer at each density and number of threads, dense in onnxruntime against the sparse kernels.

    The instruction set is the machine's best, or what the environment variable ONNXPRUNE_ISA names.

    Raises:
        SettingError: there are no sparse kernels, or a layer's sparse output is not the dense one.
    """
    if not (kernels := runtime.available()):
        raise SettingError(f"there are no sparse kernels to measure: {kernels.reason}")
    for layer in layers:
        for density in densities:
            model = _model(layer, density)
            with tempfile.TemporaryDirectory() as folder:
                dense_path, sparse_path = Path(folder) / "dense.onnx", Path(folder) / "sparse.onnx"
                onnx.save(model, dense_path)
                onnx.save(_sparse(model), sparse_path)
                del model
                for count in threads:
                    yield _time(layer, density, count, dense_path, sparse_path)


def layer_table(rows: Iterable[LayerTime]) -> Table:
    """The figures of `bench_layers`, and the CPU's name, for rich to print."""
    table = Table(title=f"Sparse kernels against dense onnxruntime {ort.__version__} on {cpu_name()}")
    for heading in ("layer", "density", "threads", "dense ms", "sparse ms", "times faster"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for row in rows:
        milliseconds = (f"{seconds * 1e3:.3f}" for seconds in (row.dense, row.sparse))
        table.add_row(row.layer, f"{row.density:.0%}", str(row.threads), *milliseconds, f"{row.ratio:.2f}")
    return table


def cpu_name() -> str:
    """The CPU's name as its maker gives it, where the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _model(layer: Layer, density: float) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(layer.weight, dtype=np.float32)
    weight[rng.random(layer.weight, dtype=np.float32) >= density] = 0
    attributes: dict[str, Any] = dict(layer.attributes)
    node = helper.make_node(layer.op_type, ["x", "w"], ["y"], "layer", **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _sparse(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    to_ops(graph, find_weights(graph).prunable)
    return ir.to_proto(graph)


def _time(layer: Layer, density: float, threads: int, dense_path: Path, sparse_path: Path) -> LayerTime:
    x = np.random.default_rng(1).standard_normal(layer.x, dtype=np.float32)
    sessions = [_session(path, threads) for path in (dense_path, sparse_path)]
    expected, got = (session.run(None, {"x": x})[0] for session in sessions)
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:
        raise SettingError(
            f"{layer.name} at density {density:g} is wrong by {error:.1e} of its largest output"
        )
    bursts = [[_burst(session, x) for session in sessions] for _ in range(BURSTS)]
    dense, sparse = (statistics.median(times) for times in zip(*bursts, strict=True))
    ratio = statistics.median(dense_time / sparse_time for dense_time, sparse_time in bursts)
    return LayerTime(layer.name, density, threads, dense, sparse, ratio)


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that waited for more would otherwise take the cores from the other session.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return runtime.session(os.fspath(path), options)


def _burst(session: ort.InferenceSession, x: np.ndarray) -> float:
    """Seconds a run takes, over as many runs as fit a burst."""
    runs, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < BURST_SECONDS or not runs:
        session.run(None, {"x": x})
        runs += 1
    return elapsed / runs

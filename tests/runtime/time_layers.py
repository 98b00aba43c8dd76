"""Times one thread takes for layers of common networks: dense onnxruntime, and the sparse kernels.

python -m tests.runtime.time_layers [PART OF A NAME ...]
ONNXPRUNE_ISA=avx2 python -m tests.runtime.time_layers

The layers and weights are those of `onnxprune bench --suite layers`, in CPU time, 20th percentiles of rounds in which
all take turns, so that other work on the machine matters little. The share of the peak is that of FMAs of registers
alone (by the C++ compiler `c++`, of x86-64), which take turns with the rest; products with zeros do not count.
"""

from __future__ import annotations

import ctypes
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from onnxprune import runtime
from onnxprune.latency.layers import LAYERS, Layer, layer_model, output_shape
from onnxprune.runtime.timing import session_options, take_turns
from tests.runtime.sessions import assert_close
from tests.runtime.time_provider import cpu_seconds
from tests.sparse.graphs import sparse

DENSITIES = (0.04, 0.1, 0.2, 0.3)
ROUNDS = 20
PERCENTILE = 20
# Floats of a vector and the compiler's flag, by instruction set.
VECTORS = {"avx512": (16, "-mavx512f"), "avx2": (8, "-mavx2")}
CHAINS = 12
FMA_ROUNDS = 400_000


def peak_burst(folder: Path) -> Callable[[], float]:
    """A burst of FMAs, in CPU seconds for each product and sum of floats."""
    wanted = os.environ.get("ONNXPRUNE_ISA") or (
        "avx512" if "avx512f" in Path("/proc/cpuinfo").read_text() else "avx2"
    )
    lanes, flag = VECTORS[wanted]
    library = folder / "peak.so"
    source = Path(__file__).with_name("fma_peak.cc")
    sizes = (f"-DLANES={lanes}", f"-DCHAINS={CHAINS}")
    command = ["c++", "-O2", "-shared", "-fPIC", flag, "-mfma", *sizes, "-o", library, source]
    subprocess.run(command, check=True)
    run = ctypes.CDLL(str(library)).fused_multiply_adds
    run.argtypes, run.restype = [ctypes.c_size_t], ctypes.c_float

    def burst() -> float:
        start = time.thread_time()
        run(FMA_ROUNDS)
        return (time.thread_time() - start) / (FMA_ROUNDS * CHAINS * lanes)

    return burst


def products(layer: Layer) -> int:
    """Of weights and inputs, zeros among them."""
    places = math.prod(layer.x[:-1])
    if layer.op_type == "Conv":
        places = math.prod(output_shape(layer)[2:])
    return places * math.prod(layer.weight)


def times(
    layer: Layer, density: float, peak: Callable[[], float], folder: Path
) -> tuple[float, float, float]:
    """Seconds of dense onnxruntime, of the kernels, and of a product at the peak."""
    dense, ops = folder / "dense.onnx", folder / "ops.onnx"
    model = layer_model(layer, density, None)
    onnx.save(model, dense)
    onnx.save(sparse(model)[0], ops)
    made = [
        ort.InferenceSession(dense, session_options(1), providers=["CPUExecutionProvider"]),
        runtime.session(ops, session_options(1)),
    ]
    feeds = {"x": np.random.default_rng(1).standard_normal(layer.x, dtype=np.float32)}
    expected, result = (session.run(None, feeds)[0] for session in made)
    assert_close(result, expected)
    rows = take_turns([*(partial(cpu_seconds, session, feeds) for session in made), peak], ROUNDS)
    slow, fast, product = (float(np.percentile(row, PERCENTILE)) for row in rows)
    return slow, fast, product


def main(parts: list[str]) -> None:
    layers = [layer for layer in LAYERS if not parts or any(part in layer.name for part in parts)]
    ratios: dict[float, list[float]] = {density: [] for density in DENSITIES}
    shares: dict[float, list[float]] = {density: [] for density in DENSITIES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peak = peak_burst(folder)
        for layer in layers:
            text = []
            for density in DENSITIES:
                dense, fast, product = times(layer, density, peak, folder)
                ratios[density].append(dense / fast)
                shares[density].append(density * products(layer) * product / fast)
                text.append(f"{density:.0%} {dense / fast:.2f} ({shares[density][-1]:.0%} of peak)")
            print(f"{layer.name}: dense {1000 * dense:.3f} ms; {', '.join(text)}", flush=True)
    for density in DENSITIES:
        print(
            f"{density:.0%} kept: geometric mean {statistics.geometric_mean(ratios[density]):.2f}, "
            f"least {min(ratios[density]):.2f}; share of the peak, median {statistics.median(shares[density]):.0%}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])

"""Writes what the examples of this folder serve: `python -m models.examples.serving.prepare [FOLDER]`.

FOLDER, build/serving where not named, gets dense.onnx (LeNet-5), small.onnx (a tenth of its weights, stored sparse),
zeros.onnx (the same weights, stored dense) and digit.f32: one image of MNIST, 28 x 28 float32 in little-endian order.
The examples of other languages print lines as this script does.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

import onnxprune
from onnxprune import runtime
from onnxprune.data.idx import read_idx

MODELS = Path(__file__).parents[2]
SAMPLE = MODELS / "mnist-sample"
WARM_UP, RUNS = 50, 500


def prepare(folder: Path) -> None:
    """Write the models and the image."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MODELS / "lenet-5.onnx", folder / "dense.onnx")
    onnxprune.prune(
        folder / "dense.onnx",
        folder / "small.onnx",
        rate=0.9,
        effort="fast",
        calibration_data=SAMPLE / "train-images-idx3-ubyte.gz",
        evaluate=False,
    )
    onnxprune.export(folder / "small.onnx", folder / "zeros.onnx", format="dense")
    image().tofile(folder / "digit.f32")


def image() -> np.ndarray:
    """An image of the test data, a six: (1, 1, 28, 28) float32 of 0 to 1."""
    return (read_idx(SAMPLE / "t10k-images-idx3-ubyte.gz")[1:2, None] / 255).astype("<f4")


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def stock_session(path: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, one_thread(), providers=["CPUExecutionProvider"])


def sparse_session(path: str) -> onnxruntime.InferenceSession:
    return runtime.session(path, one_thread())


def provider_session(path: str) -> onnxruntime.InferenceSession:
    return runtime.session(path, one_thread(), provider=True)


def report(path: Path, how: str, make: Callable[[str], onnxruntime.InferenceSession]) -> None:
    """Print what a model says of the image, and how long it takes."""
    session, feed = make(str(path)), {"input": image()}
    for _ in range(WARM_UP):
        (logits,) = session.run(None, feed)
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - start)
    latency = statistics.median(seconds) * 1e3
    print(
        f"{path.name} {how:18} digit {logits.argmax()}  {path.stat().st_size / 1000:5.0f} kB  {latency:.3f} ms"
    )


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/serving")
    prepare(folder)
    report(folder / "dense.onnx", "as it is", stock_session)
    report(folder / "small.onnx", "as it is", stock_session)
    if not (kernels := runtime.available()):
        print(f"no sparse kernels: {kernels.reason}")
        return
    report(folder / "small.onnx", "sparse kernels", sparse_session)
    report(folder / "zeros.onnx", "execution provider", provider_session)


if __name__ == "__main__":
    main()

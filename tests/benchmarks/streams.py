"""Memory and time of training on data that is read as it is needed.

    python -m tests.benchmarks.streams drawn [--gigabytes 20]
    python -m tests.benchmarks.streams cifar MODEL.onnx TRAIN.npz [--epochs 1] [--samples 50000]

`drawn`: one epoch of a small network on a torch Dataset that draws its samples, of so many gigabytes in all. `cifar`:
epochs on the arrays, the same with --augment and two workers, and both again in the other order.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.builders import floats, model_of, normal

IMAGE = (3, 224, 224)
SAMPLE_BYTES = 4 * int(np.prod(IMAGE))
# Reading the memory of a process stops it for a moment.
POLL_SECONDS = 1.0
GIGABYTES = "STREAM_GIGABYTES"


def drawn() -> Any:
    """The data of `drawn`, for the command line."""
    from torch.utils.data import Dataset

    class Drawn(Dataset):
        """Images of noise around a gray level, which is the label."""

        def __len__(self) -> int:
            return int(float(os.environ[GIGABYTES]) * 1e9 / SAMPLE_BYTES)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            label = index % 4
            noise = np.random.default_rng(index).random(IMAGE, dtype=np.float32)
            return noise + np.float32(label), label

    return Drawn()


def small_network() -> onnx.ModelProto:
    """Two strided convolutions and a classifier of four classes."""
    nodes = [
        helper.make_node("Conv", ["x", "c1"], ["a"], strides=[8, 8], name="c1"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "c2"], ["c"], strides=[4, 4], name="c2"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "bias"], ["y"], name="fc"),
    ]
    weights = {
        "c1": normal(16, 3, 8, 8) / 14,
        "c2": normal(32, 16, 4, 4) / 16,
        "fc": normal(32, 4) / 6,
        "bias": np.zeros(4, np.float32),
    }
    return model_of(nodes, [floats("x", "N", *IMAGE)], [floats("y", "N", 4)], weights)


def measured(arguments: list[str], **environment: str) -> tuple[float, float, str]:
    """Seconds, peak memory in bytes (of all processes, shared pages counted once), and the output of the command."""
    command = [sys.executable, "-m", "onnxprune", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    )
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, sum(map(_bytes, _tree(process.pid))))
            time.sleep(POLL_SECONDS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output = process.communicate()[0]
    watcher.join()
    if process.returncode:
        sys.exit(output)
    return time.perf_counter() - start, peak, output


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _tree(int(child)))]


def _bytes(pid: int) -> int:
    """The proportional set size of a process."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("drawn")
    part.add_argument("--gigabytes", default="20")
    part = parts.add_parser("cifar")
    part.add_argument("model")
    part.add_argument("data")
    part.add_argument("--epochs", default="1")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = f"{folder}/out.onnx"
        if asked.part == "drawn":
            onnx.save(small_network(), f"{folder}/in.onnx")
            flags = [
                "--rate",
                "0.5",
                "--epochs",
                "1",
                "--schedule",
                "one-shot",
                "--data",
                "tests.benchmarks.streams:drawn",
            ]
            seconds, peak, output = measured(
                [f"{folder}/in.onnx", target, *flags], **{GIGABYTES: asked.gigabytes}
            )
            print(output)
            print(f"{asked.gigabytes} GB drawn: {seconds:.0f} s, peak memory {peak / 1e9:.2f} GB")
            return
        flags = ["--rate", "0.9", "--epochs", asked.epochs, "--schedule", "one-shot", "--data", asked.data]
        ways = {"arrays": [], "augmented, two workers": ["--augment", "flip,crop:4", "--data-workers", "2"]}
        for name in (*ways, *reversed(ways)):
            seconds, peak, output = measured([asked.model, target, *flags, *ways[name]])
            line = next(line for line in output.splitlines() if line.lstrip().startswith("top-1 error"))
            print(
                f"{name}: {seconds:.0f} s, peak memory {peak / 1e9:.2f} GB, {' '.join(line.split())}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Memory and time of one-shot jobs on large models, beside loading and saving alone.

    python -m tests.benchmarks.large_models [--folder FOLDER] [--width N] [vgg19 | products ...]

The folder, a temporary one by default, needs room for some 9 GB. VGG-19 (575 MB in one file) and four products of
matrices (2.4 GB, more than protobuf takes, weights in external data). Memory is the most that a process had for
itself, pages mapped from files not counted (RssAnon, Linux), as a multiple of the weights; time is processor time, of
another run that nobody watches, as a multiple of `onnx.load` and `onnx.save`.
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import helper

from onnxprune.config.settings import PruneConfig
from onnxprune.job import pipeline
from tests.builders import floats
from tests.surgery.whole_models import light

WIDTH = 12_288
LAYERS = 4
PLAIN = "onnx.load, onnx.save"
# Format and allocation.
JOBS = ("dense uniform", "dense global", "coo uniform", "ops uniform")


def vgg19(folder: Path, width: int) -> Path:
    path = folder / "vgg19.onnx"
    onnx.save(light("vgg19")[0], path)
    return path


def products(folder: Path, width: int) -> Path:
    """Written weight by weight, since all of them are never in memory here either."""
    path = folder / "products.onnx"
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(LAYERS)]
    graph = helper.make_graph(
        nodes, "products", [floats("x0", "N", width)], [floats(f"x{LAYERS}", "N", width)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    random = np.random.default_rng(0)
    with (folder / "products.data").open("wb") as data:
        for i in range(LAYERS):
            tensor = onnx.TensorProto(name=f"w{i}", data_type=onnx.TensorProto.FLOAT, dims=[width, width])
            tensor.data_location = onnx.TensorProto.EXTERNAL
            entries = {"location": "products.data", "offset": data.tell(), "length": 4 * width * width}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            model.graph.initializer.append(tensor)
            data.write(random.standard_normal((width, width), np.float32) / np.float32(width**0.5))
    onnx.save(model, path)
    return path


def anonymous_bytes() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def do(source: Path, target: Path, job: str, at: Callable[[str, float], None]) -> None:
    """A job, or loading and saving; `at` hears of its stages."""
    if job == PLAIN:
        external = source.with_suffix(".data").exists()
        onnx.save(onnx.load(source), target, save_as_external_data=external, location=f"{target.name}.data")
    else:
        form, allocation = job.split()
        pipeline.run(source, target, PruneConfig(rate=0.9, format=form, allocation=allocation), at)


def seconds(source: Path, target: Path, job: str) -> float:
    """Processor time of a job in this process."""
    start = time.process_time()
    do(source, target, job, lambda stage, done: None)
    return time.process_time() - start


def peaks(source: Path, target: Path, job: str) -> dict[str, int]:
    """The most bytes that this process had in each stage of a job."""
    found: dict[str, int] = {}
    stage, done = ["start"], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            found[stage[0]] = max(found.get(stage[0], 0), anonymous_bytes())

    def at(name: str, part: float) -> None:
        stage[0] = name

    threading.Thread(target=watch, daemon=True).start()
    do(source, target, job, at)
    done.set()
    return found


def alone(measure: Callable[[Path, Path, str], Any], source: Path, job: str) -> Any:
    """What a measurement finds in a process of its own, where no other has left anything."""
    target = source.with_name("out.onnx")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        result = process.submit(measure, source, target, job).result()
    for file in target.parent.glob(f"{target.name}*"):
        file.unlink()
    return result


def table(source: Path, weight_bytes: int) -> None:
    print(f"{source.stem}, {weight_bytes / 1e6:,.0f} MB\n")
    print("| job | memory, to the writing | evaluation | time |\n|---|---|---|---|", flush=True)
    plain = alone(seconds, source, PLAIN)
    for job in (PLAIN, *JOBS):
        memory = alone(peaks, source, job)
        evaluation = memory.pop("evaluate", 0)
        time_ratio = 1.0 if job == PLAIN else alone(seconds, source, job) / plain
        ratios = (max(memory.values(), default=0) / weight_bytes, evaluation / weight_bytes, time_ratio)
        print(f"| {job} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |", flush=True)


MODELS: dict[str, Callable[[Path, int], Path]] = {"vgg19": vgg19, "products": products}


@click.command()
@click.argument("models", nargs=-1, type=click.Choice(list(MODELS)))
@click.option("--folder", help="Where the models are written.")
@click.option("--width", default=WIDTH, help="Rows and columns of each matrix.", show_default=True)
def main(models: tuple[str, ...], folder: str | None, width: int) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name in models or MODELS:
            source = MODELS[name](Path(place), width)
            tensors = onnx.load(source, load_external_data=False).graph.initializer
            table(source, 4 * sum(math.prod(tensor.dims) for tensor in tensors))
            for file in Path(place).iterdir():
                file.unlink()


if __name__ == "__main__":
    main()

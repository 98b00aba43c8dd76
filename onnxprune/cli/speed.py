"""Commands that measure: tune, bench."""

from __future__ import annotations

from typing import Any

import click

from onnxprune.cli.flags import CONTEXT
from onnxprune.cli.terminal import check_writable, console, progress_bar, write_json


@click.command(context_settings=CONTEXT, short_help="Choose kernels per node by measuring on this machine.")
@click.argument("source", metavar="PRUNED.onnx")
@click.argument("target", metavar="TUNED.onnx")
@click.option(
    "--input-shape",
    metavar="NAME:DIMS",
    multiple=True,
    help="Tune for this shape, for example x:1,3,224,224. Repeatable.",
)
@click.option(
    "--threads", type=click.IntRange(0), default=0, help="Threads of onnxruntime.  [default: its own choice]"
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Try whole graphs this long, once every node has been measured.",
)
def tune(source: str, target: str, input_shape: tuple[str, ...], threads: int, seconds: float) -> None:
    """Measure on this machine which nodes of a pruned model the sparse kernels make faster, and write that choice."""
    from onnxprune.cli.tables.tuning import tuning_tables
    from onnxprune.commands.tune import tune

    with progress_bar() as progress:
        tuning = tune(
            source,
            target,
            input_shape=input_shape,
            threads=threads,
            seconds=seconds,
            progress=progress,
        )
    console().print(tuning_tables(tuning))


@click.command(
    context_settings=CONTEXT, short_help="Time a model before and after pruning, or suites of layers."
)
@click.argument("files", metavar="[DENSE.onnx PRUNED.onnx]", nargs=-1)
@click.option("--suite", type=click.Choice(["layers", "models"]), help="Instead of files: what to measure.")
@click.option("--only", metavar="GLOB", multiple=True, help="Of a suite, the rows of this name. Repeatable.")
@click.option("--density", type=click.FloatRange(0, 1), multiple=True, help="Layers: share of weights kept.")
@click.option("--batch", type=click.IntRange(1), multiple=True, default=(1,), help="Layers: samples at once.")
@click.option("--isa", metavar="NAME", multiple=True, help="Also force kernels for this instruction set.")
@click.option(
    "--seconds",
    type=float,
    default=20.0,
    show_default=True,
    help="Models: search for the fastest placement of nodes this long.",
)
@click.option("--threads", type=click.IntRange(0), multiple=True, help="0: as many as onnxruntime takes.")
@click.option("--input-shape", metavar="NAME:DIMS", multiple=True, help="Files: run on inputs of this shape.")
@click.option("--json", "json_path", metavar="FILE", help="Write every figure as JSON.")
def bench(files: tuple[str, ...], suite: str | None, json_path: str | None, **options: Any) -> None:
    """Time a model before and after pruning, or suites of layers and models, dense and by the sparse kernels."""
    from onnxprune.cli.tables.bench import benchmark_tables, to_json
    from onnxprune.commands.bench import bench

    check_writable("--json", json_path)
    if (suite is None) == (not files) or len(files) not in (0, 2):
        raise click.UsageError("give two files, DENSE.onnx PRUNED.onnx, or --suite layers or models")
    with progress_bar() as progress:
        found = bench(*files, suite=suite, **options, progress=progress)
    console().print(benchmark_tables(found, suite))
    write_json(json_path, to_json(found.rows))

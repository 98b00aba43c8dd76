"""Commands that measure: tune, bench."""

from __future__ import annotations

from typing import Any

import click

from onnxprune.cli.flags import CONTEXT, flag_like
from onnxprune.cli.progress import progress_bar
from onnxprune.cli.terminal import check_writable, console, write_json
from onnxprune.config.model import ModelSettings
from onnxprune.config.pruning import BLOCKS


@click.command(
    context_settings=CONTEXT, short_help="Choose a kernel for each node by measuring on this machine."
)
@click.argument("source", metavar="PRUNED.onnx")
@click.argument("target", metavar="TUNED.onnx")
@click.option(
    "--input-shape",
    metavar="NAME:DIMS",
    multiple=True,
    help="Tune for an input of this shape, for example x:1,3,224,224. Repeatable.",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Number of threads of onnxruntime.  [default: its own choice]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Time for trying whole graphs, after every node has been measured.",
)
@flag_like(ModelSettings, "allow_links")
@flag_like(ModelSettings, "custom_ops")
def tune(source: str, target: str, **options: Any) -> None:
    """Measure on this machine which nodes the sparse kernels make faster, and write the model with that choice."""
    from onnxprune.cli.tables.tuning import tuning_tables
    from onnxprune.commands.tune import tune

    with progress_bar() as progress:
        tuning = tune(source, target, **options, progress=progress)
    console().print(tuning_tables(tuning))


@click.command(context_settings=CONTEXT, short_help="Compare the latency of a model and its pruned version.")
@click.argument("files", metavar="[DENSE.onnx PRUNED.onnx]", nargs=-1)
@click.option(
    "--suite", type=click.Choice(["layers", "models"]), help="Measure this suite instead of two files."
)
@click.option("--only", metavar="GLOB", multiple=True, help="Rows of the suite to run. Repeatable.")
@click.option(
    "--density",
    type=click.FloatRange(0, 1),
    multiple=True,
    metavar="D",
    help="Fraction of the weights kept, in the place of a network's own. Repeatable.",
)
@click.option(
    "--pattern",
    type=click.Choice(["unstructured", *BLOCKS]),
    default="unstructured",
    show_default=True,
    help="Remove single weights of the suite, or whole blocks.",
)
@click.option(
    "--quantize",
    type=click.Choice(["none", "int8"]),
    default="none",
    show_default=True,
    help="Also run the suite quantized by onnxruntime's quantize_static, dense and sparse.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    multiple=True,
    default=(1,),
    metavar="N",
    help="Suite layers: batch size. Repeatable.",
)
@click.option(
    "--isa",
    metavar="NAME",
    multiple=True,
    help="Also run the kernels for this instruction set, for example avx2. Repeatable.",
)
@click.option(
    "--seconds",
    type=float,
    default=20.0,
    show_default=True,
    metavar="S",
    help="Suite models: time for choosing the kernels of each network.",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    multiple=True,
    metavar="N",
    help="Number of threads; 0 is the choice of onnxruntime. Repeatable.",
)
@click.option(
    "--input-shape",
    metavar="NAME:DIMS",
    multiple=True,
    help="Shape of an input of the two files, for example x:1,3,224,224. Repeatable.",
)
@flag_like(ModelSettings, "allow_links")
@flag_like(ModelSettings, "custom_ops")
@click.option("--json", "json_path", metavar="FILE", help="Also write the results as JSON.")
def bench(files: tuple[str, ...], suite: str | None, json_path: str | None, **options: Any) -> None:
    """Compare latency and memory of a model and its pruned version, or run a suite of layers or models."""
    from onnxprune.cli.tables.bench import benchmark_tables, to_json
    from onnxprune.commands.bench import bench

    check_writable("--json", json_path)
    if (suite is None) == (not files) or len(files) not in (0, 2):
        raise click.UsageError("give two files, DENSE.onnx PRUNED.onnx, or --suite layers or models")
    with progress_bar() as progress:
        found = bench(*files, suite=suite, **options, progress=progress)
    console().print(benchmark_tables(found, suite))
    write_json(json_path, to_json(found.rows))

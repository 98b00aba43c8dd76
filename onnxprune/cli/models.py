"""Commands that look at models: inspect, report, compare, sensitivity."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from onnxprune.cli.flags import CONTEXT
from onnxprune.cli.tables.job import inspection
from onnxprune.cli.terminal import check_writable, console, progress_bar, write, write_json
from onnxprune.commands.compare import compare_files, comparison_table
from onnxprune.config.checks import input_shapes
from onnxprune.evaluation.evaluate import Tolerance
from onnxprune.model.io import load
from onnxprune.model.weights import find_weights
from onnxprune.sparse.restore import from_ops

STATUS_DIFFERENT = 1


@click.command(context_settings=CONTEXT)
@click.argument("source", metavar="MODEL.onnx")
def inspect(source: str) -> None:
    """Show the weights of an ONNX model: shape, density, and what cannot be pruned and why."""
    model, origin = load(source)
    from_ops(model)
    console().print(inspection(origin, model, find_weights(model)))


@click.command(context_settings=CONTEXT)
@click.argument("source", metavar="MODEL.onnx")
@click.argument("target", metavar="OUT.html")
def report(source: str, target: str) -> None:
    """Rebuild the report page of a model that onnxprune wrote, from its weights and its annotations."""
    from onnxprune.commands.report import rebuilt
    from onnxprune.report.page import page

    check_writable("OUT.html", target)
    write("OUT.html", target, page(rebuilt(source)))


@click.command(context_settings=CONTEXT)
@click.argument("first", metavar="A.onnx")
@click.argument("second", metavar="B.onnx")
@click.option("--data", metavar="DATA", help="Compare on this, as for pruning; default: random inputs.")
@click.option(
    "--input-shape", multiple=True, metavar="NAME:DIMS", help="A random input's shape, such as x:1,3,224,224."
)
@click.option("--check-rtol", type=click.FloatRange(0), default=1e-4, show_default=True, metavar="R")
@click.option("--check-atol", type=click.FloatRange(0), default=1e-5, show_default=True, metavar="A")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random inputs.")
@click.option("--json", "json_path", metavar="FILE", help="Write the figures as JSON.")
def compare(
    first: str,
    second: str,
    data: str | None,
    input_shape: tuple[str, ...],
    check_rtol: float,
    check_atol: float,
    seed: int,
    json_path: str | None,
) -> None:
    """Run two models on the same inputs: status 1 where |A - B| > atol + rtol * |A| for any element."""
    tolerance = Tolerance(relative=check_rtol, absolute=check_atol)
    check_writable("--json", json_path)
    shapes = input_shapes(input_shape)
    result = compare_files(Path(first), Path(second), tolerance, data=data, shapes=shapes, seed=seed)
    console().print(comparison_table(result, tolerance))
    write_json(json_path, result.to_dict() | {"tolerance": asdict(tolerance)})
    if any(output.beyond for output in result.outputs):
        sys.exit(STATUS_DIFFERENT)


@click.command(context_settings=CONTEXT)
@click.argument("source", metavar="MODEL.onnx")
@click.option("--data", metavar="DATA", required=True, help="As for pruning; 'synthetic' will do.")
@click.option(
    "--input-shape",
    multiple=True,
    metavar="NAME:DIMS",
    help="A made-up input's shape, such as x:1,3,224,224.",
)
@click.option(
    "--rate", "rates", type=click.FloatRange(0, 1, max_open=True), multiple=True, help="Repeatable."
)
@click.option("--samples", type=click.IntRange(1), default=1000, show_default=True, help="Use the first N.")
@click.option(
    "--json", "json_path", metavar="FILE", help="Keep the scan here, and go on from it if it is there."
)
@click.option("--plot", metavar="FILE.svg", help="Draw it as lines, one a weight.")
def sensitivity(
    source: str,
    data: str,
    input_shape: tuple[str, ...],
    rates: tuple[float, ...],
    samples: int,
    json_path: str | None,
    plot: str | None,
) -> None:
    """Prune every weight alone at a ladder of rates, and show how far the outputs move."""
    from onnxprune.commands.sensitivity import scan_table
    from onnxprune.commands.sensitivity import sensitivity as scan
    from onnxprune.pruning.sensitivity import RATES
    from onnxprune.report.charts import line_chart

    for flag, path in (("--json", json_path), ("--plot", plot)):
        check_writable(flag, path)
    state = None if json_path is None else Path(json_path)
    with progress_bar() as progress:
        found = scan(
            source,
            data,
            shapes=input_shapes(input_shape),
            rates=rates or RATES,
            samples=samples,
            state=state,
            progress=partial(progress, "scan"),
        )
    console().print(scan_table(found))
    if plot is not None:
        lines = {
            name: [(rate, loss if error is None else error) for rate, (loss, error) in sorted(losses.items())]
            for name, losses in found.layers.items()
        }
        label = "error" if found.about["labelled"] else "deviation of the outputs"
        write("--plot", plot, line_chart(lines, "rate (fraction removed)", label, "{:.0%}".format))

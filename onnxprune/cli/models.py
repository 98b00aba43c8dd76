"""Commands that look at models: inspect, report, compare, sensitivity."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial

import click

from onnxprune.cli.flags import CONTEXT, flag_like
from onnxprune.cli.progress import progress_bar
from onnxprune.cli.report_options import report_extras
from onnxprune.cli.tables.comparison import comparison_table
from onnxprune.cli.tables.inspection import inspection_tables
from onnxprune.cli.terminal import check_writable, console, write, write_json
from onnxprune.commands.compare import TOLERANCE
from onnxprune.commands.compare import compare as run_compare
from onnxprune.commands.inspect import inspect as run_inspect
from onnxprune.config.data import DataSettings
from onnxprune.config.evaluation import EvaluationSettings
from onnxprune.config.model import ModelSettings
from onnxprune.config.workers import IN_TURN
from onnxprune.evaluation.comparison import Tolerance

STATUS_DIFFERENT = 1


TRANSFORM = click.option(
    "--transform", metavar="STEPS", help="How images become inputs, as in prune --transform."
)
METRIC = click.option(
    "--metric", multiple=True, metavar="NAME", help="Metric on labeled data, as in prune --metric."
)
POSTPROCESS = click.option(
    "--postprocess", metavar="MODULE:FUNCTION", help="Makes what metrics score, as in prune."
)
LABEL_OFFSET = click.option(
    "--label-offset", type=int, default=0, show_default=True, metavar="N", help="Added to class numbers."
)


@click.command(
    context_settings=CONTEXT, short_help="Show weights, density, and what cannot be pruned and why."
)
@click.argument("source", metavar="MODEL.onnx")
@flag_like(ModelSettings, "allow_links")
@click.option("--json", "json_path", metavar="FILE", help="Also write it as JSON.")
def inspect(source: str, allow_links: tuple[str, ...], json_path: str | None) -> None:
    """Show the weights of an ONNX model: shape, density, and what cannot be pruned and why."""
    check_writable("--json", json_path)
    found = run_inspect(source, allow_links=allow_links)
    console().print(inspection_tables(found))
    write_json(json_path, found.to_dict())


@click.command(
    context_settings=CONTEXT, short_help="Rebuild the HTML report of a model that onnxprune wrote."
)
@click.argument("sources", metavar="MODEL.onnx...", nargs=-1, required=True)
@click.argument("target", metavar="OUT.html")
@click.option(
    "--baseline", metavar="IN.onnx", help="The input model, for latency and the weights before pruning."
)
@click.option("--eval-data", metavar="DATA", help="Evaluate both models on this, as in prune --eval-data.")
@METRIC
@POSTPROCESS
@report_extras
@flag_like(ModelSettings, "allow_links")
def report(
    sources: tuple[str, ...],
    target: str,
    baseline: str | None,
    eval_data: str | None,
    metric: tuple[str, ...],
    postprocess: str | None,
    price: float | None,
    watts: float | None,
    model_card: str | None,
    base_model: str | None,
    allow_links: tuple[str, ...],
) -> None:
    """Rebuild the HTML report of a model that onnxprune wrote, from its weights and its metadata.

    Several models are compared side by side.
    """
    from onnxprune.commands.report import report

    check_writable("OUT.html", target)
    check_writable("--model-card", model_card)
    report(
        sources,
        target,
        baseline=baseline,
        eval_data=eval_data,
        metric=metric,
        postprocess=postprocess,
        price=price,
        watts=watts,
        model_card=model_card,
        base_model=base_model,
        allow_links=allow_links,
    )


@click.command(
    context_settings=CONTEXT, short_help="Run two models on the same inputs and compare the outputs."
)
@click.argument("first", metavar="A.onnx")
@click.argument("second", metavar="B.onnx")
@click.option(
    "--data", metavar="DATA", help="Inputs to compare on, as in prune --data.  [default: random inputs]"
)
@click.option(
    "--input-shape",
    multiple=True,
    metavar="NAME:DIMS",
    help="Shape of a random input, for example x:1,3,224,224. Repeatable.",
)
@flag_like(DataSettings, "batch_axis")
@flag_like(DataSettings, "transform")
@flag_like(DataSettings, "label_offset")
@flag_like(EvaluationSettings, "label_output")
@METRIC
@POSTPROCESS
@click.option(
    "--check-rtol",
    type=click.FloatRange(0),
    default=TOLERANCE.relative,
    show_default=True,
    metavar="R",
    help="Relative tolerance.",
)
@click.option(
    "--check-atol",
    type=click.FloatRange(0),
    default=TOLERANCE.absolute,
    show_default=True,
    metavar="A",
    help="Absolute tolerance.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random inputs.")
@flag_like(ModelSettings, "allow_links")
@flag_like(ModelSettings, "custom_ops")
@click.option("--json", "json_path", metavar="FILE", help="Also write the results as JSON.")
def compare(
    first: str,
    second: str,
    data: str | None,
    input_shape: tuple[str, ...],
    batch_axis: tuple[str, ...],
    transform: str | None,
    label_offset: int,
    label_output: str | None,
    metric: tuple[str, ...],
    postprocess: str | None,
    check_rtol: float,
    check_atol: float,
    seed: int,
    allow_links: tuple[str, ...],
    custom_ops: tuple[str, ...],
    json_path: str | None,
) -> None:
    """Run two models on the same inputs. The exit status is 1 if |A - B| > atol + rtol * |A| for any element."""
    tolerance = Tolerance(relative=check_rtol, absolute=check_atol)
    check_writable("--json", json_path)
    result = run_compare(
        first,
        second,
        data=data,
        input_shape=input_shape,
        batch_axis=batch_axis,
        transform=transform,
        label_offset=label_offset,
        label_output=label_output,
        metric=metric,
        postprocess=postprocess,
        tolerance=tolerance,
        seed=seed,
        allow_links=allow_links,
        custom_ops=custom_ops,
    )
    console().print(comparison_table(result, tolerance))
    write_json(json_path, result.to_dict() | {"tolerance": asdict(tolerance)})
    if any(output.mismatched for output in result.outputs):
        sys.exit(STATUS_DIFFERENT)


@click.command(
    context_settings=CONTEXT, short_help="Prune one weight at a time and measure the change of the outputs."
)
@click.argument("source", metavar="MODEL.onnx")
@click.option(
    "--data", metavar="DATA", required=True, help="Inputs to measure on, as in prune --data, or 'synthetic'."
)
@click.option(
    "--input-shape",
    multiple=True,
    metavar="NAME:DIMS",
    help="Shape of a synthetic input, for example x:1,3,224,224. Repeatable.",
)
@flag_like(DataSettings, "batch_axis")
@flag_like(DataSettings, "transform")
@flag_like(DataSettings, "label_offset")
@flag_like(EvaluationSettings, "label_output")
@click.option(
    "--rate",
    "rates",
    type=click.FloatRange(0, 1, max_open=True),
    multiple=True,
    metavar="R",
    help="Rate to try. Repeatable.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Use the first N samples.",
)
@click.option(
    "--workers",
    default=IN_TURN,
    show_default=True,
    metavar="N|ray://HOST:PORT",
    help="Measure the weights at once: in N processes on this machine, or on a Ray cluster.",
)
@flag_like(ModelSettings, "allow_links")
@flag_like(ModelSettings, "custom_ops")
@click.option(
    "--json", "json_path", metavar="FILE", help="Save the scan here. If the file exists, resume from it."
)
@click.option("--plot", metavar="FILE.svg", help="Draw the scan as a chart with one line per weight.")
def sensitivity(
    source: str,
    data: str,
    input_shape: tuple[str, ...],
    batch_axis: tuple[str, ...],
    transform: str | None,
    label_offset: int,
    label_output: str | None,
    rates: tuple[float, ...],
    samples: int,
    workers: str,
    allow_links: tuple[str, ...],
    custom_ops: tuple[str, ...],
    json_path: str | None,
    plot: str | None,
) -> None:
    """Prune one weight at a time at several rates, and measure how far the outputs move."""
    from onnxprune.cli.tables.scan import scan_table
    from onnxprune.commands.sensitivity import sensitivity
    from onnxprune.pruning.sensitivity import RATES
    from onnxprune.reports.charts import Axis, Chart, svg

    for flag, path in (("--json", json_path), ("--plot", plot)):
        check_writable(flag, path)
    with progress_bar() as progress:
        found = sensitivity(
            source,
            data,
            input_shape=input_shape,
            batch_axis=batch_axis,
            transform=transform,
            label_offset=label_offset,
            label_output=label_output,
            rates=rates or RATES,
            samples=samples,
            state=json_path,
            workers=workers,
            allow_links=allow_links,
            custom_ops=custom_ops,
            progress=partial(progress, "scan"),
        )
    console().print(scan_table(found))
    if plot is not None:
        lines = {
            name: [(rate, loss if error is None else error) for rate, (loss, error) in sorted(losses.items())]
            for name, losses in found.layers.items()
        }
        label = "error" if found.scored else "deviation of the outputs"
        chart = Chart(lines, Axis("rate (fraction removed)", "{:.0%}"), Axis(label, "{:.3g}", from_zero=True))
        write("--plot", plot, svg(chart))

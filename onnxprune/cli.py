"""The command line: its flags are the fields of `PruneConfig`; nothing is decided here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import Field, asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxprune.checks import input_shapes, parse_fraction
from onnxprune.compare import compare_files, comparison_table
from onnxprune.config import PruneConfig
from onnxprune.errors import ModelFileError, OnnxPruneError
from onnxprune.evaluate import Tolerance
from onnxprune.interrupts import stopping_at_once
from onnxprune.jobs import DECIDED, perform, retraining
from onnxprune.model.io import load
from onnxprune.model.replace import remove_working_folders
from onnxprune.model.weights import find_weights
from onnxprune.processes import is_first_process
from onnxprune.recipe import load_recipe, save_recipe
from onnxprune.report.tables import inspection, job_details, job_summary
from onnxprune.report.trials import trials_table
from onnxprune.sparse.rewrite import from_ops
from onnxprune.terminal import check_writable, console, progress_bar, write, write_json

STATUS_DIFFERENT = 1
STATUS_BAD_INPUT = 2
STATUS_INTERRUPTED = 130
INTERRUPTED = "interrupted; the target was left as it was"

EPILOG = """\b
Examples:
  onnxprune in.onnx out.onnx --rate 0.9
  onnxprune in.onnx out.onnx --rate 0.9 --data train.npz --eval-data test.npz
  onnxprune in.onnx out.onnx --rate 0.9 --exclude conv1 --layer-rate 'fc*=0.95'
  onnxprune in.onnx out.onnx --rate 0.5 --pattern channel --round-to 8
  onnxprune in.onnx out.onnx --max-drop 0.5% --data train.npz --eval-data test.npz
  onnxprune pick out.onnx.frontier smaller.onnx --max-drop 1%
  onnxprune retrain out.onnx newer.onnx --data new.npz --old-data train.npz
  onnxprune inspect in.onnx
  onnxprune sensitivity in.onnx --data test.npz --json scan.json --plot scan.svg
  onnxprune compare in.onnx out.onnx --check-rtol 0.01
  onnxprune tune out.onnx tuned.onnx --input-shape x:1,3,224,224
  onnxprune bench in.onnx out.onnx --input-shape x:1,3,224,224
  onnxprune bench --suite layers --only 'Conv 3x3*' --density 0.1
"""
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    # ONNX's other tools write --snake_case: both spellings work.
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 100,
}


def _option(setting: Field[Any]) -> click.Option:
    """The flag of a setting: --kebab-case, or a pair for a switch."""
    name = setting.name.replace("_", "-")
    arguments: dict[str, Any] = {"help": setting.metadata["help"], "default": setting.default}
    if isinstance(setting.default, bool):
        return click.Option([f"--{name}/--no-{name}", setting.name], show_default=True, **arguments)
    if "choices" in setting.metadata:
        synonyms = setting.metadata.get("synonyms", ())
        arguments["type"] = click.Choice([*setting.metadata["choices"], *synonyms])
    elif str(setting.type).startswith("int"):
        arguments["type"] = int
    return click.Option(
        [f"--{name}", *setting.metadata.get("aliases", ()), setting.name],
        metavar=setting.metadata["metavar"],
        multiple=isinstance(setting.default, tuple),
        show_default=setting.default not in (None, ()),
        **arguments,
    )


class GroupedCommand(click.Command):
    """A command whose help shows the settings of a job under the headings that they are declared under."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = {setting.name: setting.metadata.get("group") for setting in fields(PruneConfig)}
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        heading = "Options"
        for parameter in self.get_params(ctx):
            heading = headings.get(parameter.name or "", "Options") or heading
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                sections.setdefault(heading, []).append(record)
        sections["Options"] = sections.pop("Options")
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


@click.command(
    cls=GroupedCommand,
    context_settings=CONTEXT,
    epilog=EPILOG,
    params=[_option(setting) for setting in fields(PruneConfig)],
)
@click.argument("source", metavar="IN.onnx")
@click.argument("output", metavar="OUT.onnx")
@click.option(
    "--json", "json_path", metavar="FILE", help="Write everything in the summary, and more, as JSON."
)
@click.option(
    "--config", metavar="FILE", is_eager=True, expose_value=False, callback=lambda *given: _read_recipe(*given),
    help="Take settings from this recipe (YAML); flags that are given as well win.",
)  # fmt: skip
@click.option("--save-config", metavar="FILE", help="Write every setting of this job as a recipe.")
@click.option(
    "--report", "html_path", metavar="FILE.html", help="Write a page that shows all of it, and why."
)
@click.option("-v", "--verbose", is_flag=True, help="Also show every epoch and what could not be pruned.")
@click.version_option(package_name="onnxprune")
def prune(
    source: str,
    output: str,
    json_path: str | None,
    save_config: str | None,
    html_path: str | None,
    verbose: bool,
    **settings: Any,
) -> None:
    """Prune an ONNX model, retrain it on data, judge it in onnxruntime, and write OUT.onnx."""
    config = PruneConfig(**settings)
    for flag, path in (("--json", json_path), ("--report", html_path)):
        check_writable(flag, path)
    if save_config is not None:
        save_recipe(Path(save_config), config)
    _perform(source, output, config, json_path, html_path, verbose)


@click.command(
    cls=GroupedCommand,
    context_settings=CONTEXT,
    params=[_option(setting) for setting in fields(PruneConfig) if setting.name not in DECIDED],
)
@click.argument("source", metavar="PRUNED.onnx")
@click.argument("output", metavar="OUT.onnx")
@click.option("--splice", is_flag=True, help="Let connections come back where they grow; as many others go.")
@click.option(
    "--json", "json_path", metavar="FILE", help="Write everything in the summary, and more, as JSON."
)
@click.option(
    "--report", "html_path", metavar="FILE.html", help="Write a page that shows all of it, and why."
)
@click.option("-v", "--verbose", is_flag=True, help="Also show every epoch.")
@click.pass_context
def retrain(
    context: click.Context,
    source: str,
    output: str,
    splice: bool,
    json_path: str | None,
    html_path: str | None,
    verbose: bool,
    **settings: Any,
) -> None:
    """Retrain a pruned model on new data: what is zero stays zero, and the file keeps its form."""
    for flag, path in (("--json", json_path), ("--report", html_path)):
        check_writable(flag, path)
    given = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    _perform(source, output, retraining(source, splice, given), json_path, html_path, verbose)


def _perform(
    source: str, output: str, config: PruneConfig, json_path: str | None, html_path: str | None, verbose: bool
) -> None:
    """Do a job and show what came of it."""
    with progress_bar() as progress:
        report = perform(source, Path(output), config, progress).report
    if not is_first_process():
        return
    screen = console()
    if verbose:
        screen.print(job_details(report))
    if report.trials:
        screen.print(trials_table(report.trials))
    screen.print(job_summary(report))
    record = report.to_dict()
    if html_path is not None:
        from onnxprune.report.latency import latency
        from onnxprune.report.page import page

        record["latency"] = latency(Path(source), Path(output), report.sample)
        write("--report", html_path, page(record))
    write_json(json_path, record)


@click.command(context_settings=CONTEXT)
@click.argument("folder", metavar="FRONTIER")
@click.argument("output", metavar="OUT.onnx", required=False)
@click.option("--rate", metavar="R", help="Take the best trial that removes this much or more.")
@click.option("--max-drop", metavar="DROP", help="Take the highest rate that is worse by no more than this.")
def pick(folder: str, output: str | None, rate: str | None, max_drop: str | None) -> None:
    """Take another trial of a search, without a new run; without OUT.onnx, show what there is."""
    from onnxprune.frontier import Frontier
    from onnxprune.pick import pick

    chosen = None
    if output is not None:
        chosen = pick(
            folder,
            output,
            rate=None if rate is None else parse_fraction("--rate", rate),
            max_drop=None if max_drop is None else parse_fraction("--max-drop", max_drop),
        )
    console().print(trials_table(Frontier.read(Path(folder)).records(chosen)))


@click.command(context_settings=CONTEXT)
@click.argument("source", metavar="MODEL.onnx")
def inspect(source: str) -> None:
    """Show the weights of an ONNX model: shape, density, and what cannot be pruned and why."""
    model, origin = load(source)
    from_ops(model)
    console().print(inspection(origin, model, find_weights(model)))


@click.command(context_settings=CONTEXT)
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
    """Measure on this machine which nodes of a pruned model the sparse kernels make faster, and write it so."""
    from onnxprune.report.tuning import tuning_tables
    from onnxprune.tune import tune

    with progress_bar() as progress:
        tuning = tune(
            source,
            target,
            input_shapes=input_shapes(input_shape),
            threads=threads,
            seconds=seconds,
            progress=progress,
        )
    console().print(tuning_tables(tuning))


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
    help="Models: --target auto tries graphs this long.",
)
@click.option("--threads", type=click.IntRange(0), multiple=True, help="0: as many as onnxruntime takes.")
@click.option("--input-shape", metavar="NAME:DIMS", multiple=True, help="Files: run on inputs of this shape.")
@click.option("--json", "json_path", metavar="FILE", help="Write every figure as JSON.")
def bench(files: tuple[str, ...], suite: str | None, json_path: str | None, **options: Any) -> None:
    """Time a model before and after pruning, or suites of layers and models, dense and by the sparse kernels."""
    from onnxprune.bench.run import run_files, run_suite
    from onnxprune.bench.tables import to_json

    check_writable("--json", json_path)
    if (suite is None) == (not files) or len(files) not in (0, 2):
        raise click.UsageError("give two files, DENSE.onnx PRUNED.onnx, or --suite layers or models")
    shapes = input_shapes(options.pop("input_shape"))
    if suite is None:
        before, after = files
        rows, table = run_files(before, after, shapes, options["threads"])
    else:
        with progress_bar() as progress:
            rows, table = run_suite(suite, **options, progress=progress)
    console().print(table)
    write_json(json_path, to_json(rows))


@click.command(context_settings=CONTEXT)
@click.argument("source", metavar="MODEL.onnx")
@click.option("--data", metavar="DATA", required=True, help="As for pruning; 'synthetic' will do.")
@click.option(
    "--rate", "rates", type=click.FloatRange(0, 1, max_open=True), multiple=True, help="Repeatable."
)
@click.option("--samples", type=click.IntRange(1), default=1000, show_default=True, help="Use the first N.")
@click.option(
    "--json", "json_path", metavar="FILE", help="Keep the scan here, and go on from it if it is there."
)
@click.option("--plot", metavar="FILE.svg", help="Draw it as lines, one a weight.")
def sensitivity(
    source: str, data: str, rates: tuple[float, ...], samples: int, json_path: str | None, plot: str | None
) -> None:
    """Prune every weight alone at a ladder of rates, and show how far the outputs move."""
    from onnxprune.pruning.sensitivity import RATES
    from onnxprune.report.charts import line_chart
    from onnxprune.sensitivity import scan_table
    from onnxprune.sensitivity import sensitivity as scan

    for flag, path in (("--json", json_path), ("--plot", plot)):
        check_writable(flag, path)
    state = None if json_path is None else Path(json_path)
    with progress_bar() as progress:
        found = scan(
            source,
            data,
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


@click.command(context_settings=CONTEXT)
@click.argument("source", metavar="MODEL.onnx")
@click.argument("target", metavar="OUT.html")
def report(source: str, target: str) -> None:
    """Rebuild the report page of a model that onnxprune wrote, as far as the model's own annotations tell."""
    from onnxprune.report.page import page
    from onnxprune.report.record import record_of_annotations

    check_writable("OUT.html", target)
    model, _ = load(source)
    record = record_of_annotations(model.metadata_props, source)
    if record is None:
        raise ModelFileError(f"{source} has no annotations of onnxprune: give a file that it wrote")
    write("OUT.html", target, page(record))


COMMANDS = {
    "prune": prune,
    "retrain": retrain,
    "pick": pick,
    "inspect": inspect,
    "report": report,
    "sensitivity": sensitivity,
    "compare": compare,
    "tune": tune,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 worse than allowed, 2 bad input (one line on stderr), 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    name = words.pop(0) if words[0] in COMMANDS else "prune"
    # It warns of what it leaves out of a model; errors come as exceptions.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        program = "onnxprune" if name == "prune" else f"onnxprune {name}"
        with stopping_at_once(_interrupted, STATUS_INTERRUPTED):
            COMMANDS[name].main(words, prog_name=program, standalone_mode=False)
    except OnnxPruneError as error:
        _fail(str(error), error.exit_status)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except MemoryError:
        _fail(
            "out of memory; the target was left as it was: the model needs a larger machine", STATUS_BAD_INPUT
        )
    except (click.Abort, KeyboardInterrupt):
        _fail(INTERRUPTED, STATUS_INTERRUPTED)


def _interrupted() -> None:
    remove_working_folders()
    click.echo(f"onnxprune: {INTERRUPTED}", err=True)


def _fail(message: str, status: int) -> None:
    click.echo(f"onnxprune: {' '.join(message.split())}", err=True)
    sys.exit(status)


def _read_recipe(context: click.Context, _option: click.Parameter, path: str | None) -> None:
    """The recipe's settings stand in the place of the flags' defaults."""
    if path is not None:
        context.default_map = load_recipe(Path(path))

"""Commands that write a model: prune, retrain, pick."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxprune.cli.flags import CONTEXT, GroupedCommand, option_of, settings_of
from onnxprune.cli.progress import progress_bar
from onnxprune.cli.report_options import ReportOptions
from onnxprune.cli.tables.trials import trials_table
from onnxprune.cli.terminal import check_writable, console
from onnxprune.commands.prune import prune as run_prune
from onnxprune.commands.retrain import retrain as run_retrain
from onnxprune.config.checks import parse_fraction
from onnxprune.config.recipe import load_recipe, save_recipe
from onnxprune.config.settings import PruneConfig, RetrainSettings, job_settings
from onnxprune.job.result import Result
from onnxprune.system.processes import is_first_process

EPILOG = """\b
Examples:
  onnxprune in.onnx out.onnx --rate 0.9
  onnxprune in.onnx out.onnx --rate 0.9 --data train.npz --eval-data test.npz
  onnxprune in.onnx out.onnx --rate 0.9 --exclude conv1 --layer-rate 'fc*=0.95'
  onnxprune in.onnx out.onnx --rate 0.5 --pattern channel
  onnxprune in.onnx out.onnx --max-drop 0.5% --data train.npz --eval-data test.npz
"""


def _read_recipe(context: click.Context, _option: click.Parameter, path: str | None) -> None:
    """Replace the defaults of the flags by the settings of the recipe."""
    if path is not None:
        context.default_map = load_recipe(Path(path))


@click.command(
    cls=GroupedCommand,
    context_settings=CONTEXT,
    epilog=EPILOG,
    params=[option_of(setting) for setting in settings_of(PruneConfig)],
    short_help="Prune a model (the default command).",
)
@click.argument("source", metavar="IN.onnx")
@click.argument("output", metavar="OUT.onnx")
@click.option(
    "--config",
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_read_recipe,
    help="Read settings from this recipe (YAML). Flags override it.",
)
@click.option("--save-config", metavar="FILE", help="Write all settings of this job as a recipe.")
@ReportOptions.flags
@click.version_option(package_name="onnxprune")
@click.pass_context
def prune(
    context: click.Context,
    source: str,
    output: str,
    save_config: str | None,
    reporting: ReportOptions,
    **settings: Any,
) -> None:
    """Prune an ONNX model, fine-tune it on data, evaluate it in onnxruntime, and write OUT.onnx."""
    given = _given(context, settings)
    config = job_settings(**given)
    reporting.check()
    check_writable("--save-config", save_config)
    if save_config is not None:
        save_recipe(Path(save_config), config)
    with progress_bar(reporting.quiet, config.seconds) as progress:
        result = run_prune(source, output, progress, **given)
    _show(result, source, output, reporting)


@click.command(
    cls=GroupedCommand,
    context_settings=CONTEXT,
    params=[option_of(setting) for setting in settings_of(RetrainSettings)],
    short_help="Fine-tune a pruned model on new data; zeros stay zero.",
)
@click.argument("source", metavar="PRUNED.onnx")
@click.argument("output", metavar="OUT.onnx")
@ReportOptions.flags
@click.pass_context
def retrain(
    context: click.Context, source: str, output: str, reporting: ReportOptions, **settings: Any
) -> None:
    """Fine-tune a pruned model on new data. Removed weights stay zero, and the file keeps its format."""
    reporting.check()
    given = _given(context, settings)
    with progress_bar(reporting.quiet, RetrainSettings(**given).seconds) as progress:
        result = run_retrain(source, output, progress, **given)
    _show(result, source, output, reporting)


def _given(context: click.Context, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not left open, by flags or by a recipe."""
    return {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }


def _show(result: Result, source: str, output: str, reporting: ReportOptions) -> None:
    if is_first_process():
        reporting.show(result.report, source, output)


@click.command(context_settings=CONTEXT, short_help="List the trials of a search, or write the model of one.")
@click.argument("folder", metavar="FRONTIER")
@click.argument("output", metavar="OUT.onnx", required=False)
@click.option("--rate", metavar="R", help="Pick the best trial with this rate or a higher one.")
@click.option(
    "--max-drop",
    metavar="DROP",
    help="Pick the highest rate with this drop or a smaller one, in the unit of the metric.",
)
def pick(folder: str, output: str | None, rate: str | None, max_drop: str | None) -> None:
    """Write the model of another trial of a search, without a new run. Without OUT.onnx, list the trials."""
    from onnxprune.commands.pick import pick
    from onnxprune.job.search.frontier import Frontier

    chosen = None
    if output is not None:
        chosen = pick(
            folder,
            output,
            rate=None if rate is None else parse_fraction("--rate", rate),
            max_drop=None if max_drop is None else parse_fraction("--max-drop", max_drop),
        )
    console().print(trials_table(Frontier.read(Path(folder)).records(chosen)))

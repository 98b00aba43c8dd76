"""Commands that write a model: prune, retrain, pick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxprune.cli.flags import CONTEXT, GroupedCommand, option_of
from onnxprune.cli.tables.job import job_details, job_summary
from onnxprune.cli.tables.trials import trials_table
from onnxprune.cli.terminal import check_writable, console, progress_bar, write, write_json
from onnxprune.commands.prune import DECIDED, perform, retraining
from onnxprune.config.checks import parse_fraction
from onnxprune.config.recipe import load_recipe, save_recipe
from onnxprune.config.settings import PruneConfig
from onnxprune.report.record import Report
from onnxprune.system.processes import is_first_process

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


@dataclass(frozen=True)
class Telling:
    """What is told of a job beside the summary, and where."""

    json_path: str | None
    html_path: str | None
    verbose: bool

    @staticmethod
    def flags(command: Callable[..., None]) -> Callable[..., None]:
        """Give a command the flags, and what they say as its argument `telling`."""

        @click.option(
            "--json", "json_path", metavar="FILE", help="Write everything in the summary, and more, as JSON."
        )
        @click.option(
            "--report", "html_path", metavar="FILE.html", help="Write a page that shows all of it, and why."
        )
        @click.option(
            "-v", "--verbose", is_flag=True, help="Also show every epoch and what could not be pruned."
        )
        @wraps(command)
        def with_flags(
            *arguments: Any, json_path: str | None, html_path: str | None, verbose: bool, **others: Any
        ) -> None:
            command(*arguments, telling=Telling(json_path, html_path, verbose), **others)

        return with_flags

    def check(self) -> None:
        """Refuse before the job, not after it, what cannot be written."""
        check_writable("--json", self.json_path)
        check_writable("--report", self.html_path)

    def tell(self, report: Report, source: str, output: str) -> None:
        screen = console()
        if self.verbose:
            screen.print(job_details(report))
        if report.trials:
            screen.print(trials_table(report.trials))
        screen.print(job_summary(report))
        record = report.to_dict()
        if self.html_path is not None:
            from onnxprune.report.latency import latency
            from onnxprune.report.page import page

            record["latency"] = latency(Path(source), Path(output), report.sample)
            write("--report", self.html_path, page(record))
        write_json(self.json_path, record)


def _perform(source: str, output: str, config: PruneConfig, telling: Telling) -> None:
    """Do a job and show what came of it."""
    with progress_bar() as progress:
        report = perform(source, Path(output), config, progress).report
    if is_first_process():
        telling.tell(report, source, output)


def _read_recipe(context: click.Context, _option: click.Parameter, path: str | None) -> None:
    """The recipe's settings stand in the place of the flags' defaults."""
    if path is not None:
        context.default_map = load_recipe(Path(path))


@click.command(
    cls=GroupedCommand,
    context_settings=CONTEXT,
    epilog=EPILOG,
    params=[option_of(setting) for setting in fields(PruneConfig)],
)
@click.argument("source", metavar="IN.onnx")
@click.argument("output", metavar="OUT.onnx")
@click.option(
    "--config",
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_read_recipe,
    help="Take settings from this recipe (YAML); flags that are given as well win.",
)
@click.option("--save-config", metavar="FILE", help="Write every setting of this job as a recipe.")
@Telling.flags
@click.version_option(package_name="onnxprune")
def prune(
    source: str,
    output: str,
    save_config: str | None,
    telling: Telling,
    **settings: Any,
) -> None:
    """Prune an ONNX model, retrain it on data, judge it in onnxruntime, and write OUT.onnx."""
    config = PruneConfig(**settings)
    telling.check()
    if save_config is not None:
        save_recipe(Path(save_config), config)
    _perform(source, output, config, telling)


@click.command(
    cls=GroupedCommand,
    context_settings=CONTEXT,
    params=[option_of(setting) for setting in fields(PruneConfig) if setting.name not in DECIDED],
)
@click.argument("source", metavar="PRUNED.onnx")
@click.argument("output", metavar="OUT.onnx")
@click.option("--splice", is_flag=True, help="Let connections come back where they grow; as many others go.")
@Telling.flags
@click.pass_context
def retrain(
    context: click.Context,
    source: str,
    output: str,
    splice: bool,
    telling: Telling,
    **settings: Any,
) -> None:
    """Retrain a pruned model on new data: what is zero stays zero, and the file keeps its form."""
    telling.check()
    given = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    _perform(source, output, retraining(source, splice, given), telling)


@click.command(context_settings=CONTEXT)
@click.argument("folder", metavar="FRONTIER")
@click.argument("output", metavar="OUT.onnx", required=False)
@click.option("--rate", metavar="R", help="Take the best trial that removes this much or more.")
@click.option("--max-drop", metavar="DROP", help="Take the highest rate that is worse by no more than this.")
def pick(folder: str, output: str | None, rate: str | None, max_drop: str | None) -> None:
    """Take another trial of a search, without a new run; without OUT.onnx, show what there is."""
    from onnxprune.commands.pick import pick
    from onnxprune.job.frontier import Frontier

    chosen = None
    if output is not None:
        chosen = pick(
            folder,
            output,
            rate=None if rate is None else parse_fraction("--rate", rate),
            max_drop=None if max_drop is None else parse_fraction("--max-drop", max_drop),
        )
    console().print(trials_table(Frontier.read(Path(folder)).records(chosen)))

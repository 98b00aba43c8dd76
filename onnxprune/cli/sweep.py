"""The command that tries a grid of settings: sweep."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxprune.cli.flags import CONTEXT, GroupedCommand, option_of, settings_of
from onnxprune.cli.progress import progress_bar
from onnxprune.cli.report_options import quiet_flag
from onnxprune.cli.tables.sweep import sweep_tables
from onnxprune.cli.terminal import check_writable, console, write_json
from onnxprune.commands.sweep import sweep as run_sweep
from onnxprune.config.grid import RUN_SETTINGS
from onnxprune.config.settings import PruneConfig
from onnxprune.config.sweep import SweepSettings
from onnxprune.errors import ValidationError
from onnxprune.job.sweep.folder import read_results
from onnxprune.job.sweep.job import read_settings, sweep_folder

STATUS_FAILED = 1
EPILOG = """\b
Examples:
  onnxprune sweep in.onnx --grid grid.yaml --seeds 3 --data train.npz
  onnxprune sweep in.onnx out.onnx --grid grid.yaml --seeds 3 --data train.npz --max-drop 0.5%
  onnxprune sweep in.onnx out.onnx --grid grid.yaml --seeds 3 --data train.npz --max-bytes 100k --resume
"""
RUN_NAMES = {each.name for each in RUN_SETTINGS}
SETTINGS = (*fields(SweepSettings), *(each for each in settings_of(PruneConfig) if each.name in RUN_NAMES))


@click.command(
    cls=GroupedCommand,
    context_settings=CONTEXT,
    epilog=EPILOG,
    params=[option_of(setting) for setting in SETTINGS],
    short_help="Try every combination of a grid of settings, with several seeds.",
)
@click.argument("source", metavar="IN.onnx")
@click.argument("output", metavar="[OUT.onnx]", required=False)
@click.option("--json", "json_path", metavar="FILE", help="Also write the results as JSON.")
@quiet_flag
@click.pass_context
def sweep(
    context: click.Context,
    source: str,
    output: str | None,
    json_path: str | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Try every combination of a grid of settings with several seeds, and compare them on validation data.

    With OUT.onnx, the best combination within a budget is written, and evaluated on --eval-data. The exit status is 1
    if a run failed, or if no combination is within the budget.
    """
    check_writable("--json", json_path)
    given = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    try:
        with progress_bar(quiet) as progress:
            found = run_sweep(source, output, progress, **given).to_dict()
    except ValidationError:
        # None is within the budget: the results tell by how much.
        target = None if output is None else Path(output)
        folder = sweep_folder(source, target, read_settings(given)[0])
        found = read_results(folder) or {}
        _show(found, json_path, quiet)
        raise
    _show(found, json_path, quiet)
    failed = sum(run["error"] is not None for run in found["runs"])
    if failed:
        click.echo(f"onnxprune: {failed} of {len(found['runs'])} runs failed", err=True)
        raise SystemExit(STATUS_FAILED)


def _show(found: dict[str, Any], json_path: str | None, quiet: bool) -> None:
    if not quiet:
        console().print(*sweep_tables(found), sep="\n")
    if json_path is not None:
        write_json(json_path, found)

"""A sweep from file to file: perform the runs of a grid, average them over the seeds, and write the best in a budget.

All runs are independent, so workers can perform any number of them at once. Runs are scored on validation data; test
data is only used for the one that is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxprune.config.grid import Grid, expand, read_grid, refuse_kept
from onnxprune.config.settings import DATA_SOURCES, PruneConfig
from onnxprune.config.sweep import SweepSettings
from onnxprune.data.sources import repeatable
from onnxprune.errors import OnnxPruneError, SettingError
from onnxprune.evaluation.metrics import drop_text
from onnxprune.job.early_checks import check_early
from onnxprune.job.requirements import check_requirements
from onnxprune.job.search.trials import Experiment, threads_for
from onnxprune.job.sweep.choice import Budget
from onnxprune.job.sweep.folder import SweepFolder
from onnxprune.job.sweep.output import write_chosen
from onnxprune.job.sweep.results import Chosen, Combination, Sweep
from onnxprune.job.sweep.runs import Item, identity, perform, run_name
from onnxprune.job.workers.hiring import hired
from onnxprune.job.workers.parcel import sendable
from onnxprune.job.workers.pool import Workers
from onnxprune.model.files.io import ModelLike, Source
from onnxprune.reports.sweep import write_tradeoff
from onnxprune.system.processes import is_only_process
from onnxprune.system.progress import StageProgress
from onnxprune.system.trust import trust


def sweep(source: ModelLike, target: Path | None, asked: Mapping[str, Any], progress: StageProgress) -> Sweep:
    """Perform the sweep that is asked for: settings of `SweepSettings`, and of `PruneConfig` for all runs.

    Raises:
        ValidationError: no combination is within the budget; the target is not changed.
        OnnxPruneError: what is wrong, and how to fix it.
    """
    settings, grid = read_settings(asked)
    if target is not None and not settings.budgeted:
        raise SettingError(
            f"a sweep writes {target} for a budget only: give --max-drop, --max-loss or --max-bytes, or no output file"
        )
    if not is_only_process():
        raise SettingError("a sweep runs in one process: start it without torchrun, and give --workers")
    for config in grid.configs:
        check_requirements(config)
        if not config.evaluate:
            raise SettingError("a sweep compares its runs: remove --no-evaluate")
    folder = sweep_folder(source, target, settings)
    first = grid.configs[0]
    trust(first.allow_links, first.custom_ops)
    origin = check_early(source, target, first)
    with hired(settings.workers, first.device, len(grid.configs)) as workers:
        runs = SweepFolder.begin(folder, _origin(origin, grid), grid.axes, settings.resume)
        try:
            _perform(origin, grid, runs, workers, progress)
        finally:
            runs.discard()
    finished = Sweep(folder, grid.axes, grid.seeds, _combinations(origin, grid, runs))
    runs.finish(finished)
    if len(finished.failed) == len(grid.configs):
        raise OnnxPruneError(f"all runs of the sweep failed; the first one: {finished.failed[0].error}")
    write_tradeoff(folder, finished.to_dict())
    if not settings.budgeted:
        return finished
    finished = replace(finished, chosen=Budget.of(settings).choose(finished.combinations))
    if target is not None:
        finished = _written(finished, origin, grid, runs, target)
    runs.finish(finished)
    return finished


def read_settings(asked: Mapping[str, Any]) -> tuple[SweepSettings, Grid]:
    """The settings of a sweep itself, and its combinations, from keywords or flags that are not defaults.

    Raises:
        SettingError: what is wrong, and how to fix it.
    """
    own = [each.name for each in fields(SweepSettings)]
    given = {name: asked[name] for name in own if name in asked}
    if given.get("grid") is None:
        SweepSettings(**given)
    content = read_grid(given["grid"])
    settings = SweepSettings(**{name: content[name] for name in own if name in content} | given)
    shared = {name: value for name, value in asked.items() if name not in own}
    refuse_kept(shared, "the settings")
    shared |= {name: repeatable(shared[name]) for name in DATA_SOURCES if name in shared}
    return settings, expand(
        {name: value for name, value in content.items() if name not in own}, shared, settings.seeds
    )


def sweep_folder(source: ModelLike, target: Path | None, settings: SweepSettings) -> Path:
    """The folder of --folder, or one beside the target, or in the working folder one called like the input.

    Raises:
        SettingError: there is none of them.
    """
    if settings.folder is not None:
        return Path(settings.folder)
    if target is None and not isinstance(source, str | os.PathLike):
        raise SettingError("a sweep of a model in memory needs a place for its runs: give folder")
    if target is not None:
        return target.with_name(f"{target.name}.sweep")
    # Not beside the input, which may lie among files of others or where nothing can be written.
    return Path(f"{Path(source).name}.sweep")  # type: ignore[arg-type]


def _origin(origin: Source, grid: Grid) -> dict[str, Any]:
    """What runs of one folder have in common: the model, and the settings that are no axes."""
    common = {
        name: value for name, value in identity(grid.configs[0]).items() if name not in {*grid.axes, "seed"}
    }
    return {"model": origin.sha256} | common


def _perform(
    origin: Source, grid: Grid, runs: SweepFolder, workers: Workers, progress: StageProgress
) -> None:
    """Perform the runs that are not finished, and record each as soon as it is."""
    configs = grid.configs
    # Without fine-tuning, no run needs torch.
    threads = threads_for(workers) if configs[0].data is not None else None
    # Test data stays here.
    common = replace(configs[0], eval_data=None, old_data=None)
    experiment = Experiment(
        sendable(origin, workers.here), common, runs.path if workers.here else None, threads
    )
    # More than the axes where a target of the grid chooses settings that are open.
    own = [
        each.name
        for each in fields(common)
        if any(getattr(config, each.name) != getattr(configs[0], each.name) for config in configs)
    ]
    items = [
        Item(name, {each: getattr(config, each) for each in own}, index, len(configs))
        for index, config in enumerate(configs)
        if (name := run_name(origin.sha256, config)) not in runs.runs
    ]
    with closing(workers.perform(perform, experiment, items, progress, runs.add)) as outcomes:
        for _ in outcomes:
            pass


def _combinations(origin: Source, grid: Grid, runs: SweepFolder) -> tuple[Combination, ...]:
    return tuple(
        Combination(each.values, tuple(runs.runs[run_name(origin.sha256, config)] for config in each.configs))
        for each in grid.combinations
    )


def _written(finished: Sweep, origin: Source, grid: Grid, runs: SweepFolder, target: Path) -> Sweep:
    """The sweep whose chosen run is written to the target."""
    chosen = finished.chosen
    assert chosen is not None
    config = next(config for config in grid.configs if run_name(origin.sha256, config) == chosen.run.name)
    found = write_chosen(
        origin, runs.path / chosen.run.model, target, config, [_note(finished, chosen, config)]
    )
    return replace(
        finished,
        path=target,
        evaluation=found.get("evaluation"),
        old_evaluation=found.get("old_evaluation"),
    )


def _note(finished: Sweep, chosen: Chosen, config: PruneConfig) -> str:
    spread = chosen.combination.over_seeds(lambda scored: scored.drop)
    text = partial(drop_text, chosen.combination.scored[0].metric)
    deviation = "" if spread.deviation is None else f" (standard deviation {text(spread.deviation)})"
    return (
        f"Chosen from {len(finished.combinations)} combinations with {len(finished.seeds)} seeds each: a mean drop of "
        f"{text(spread.mean)}{deviation} on validation data; this is seed {config.seed}."
    )

"""One run of a sweep: a job with the settings of a combination and a seed; any process can perform it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import MissingPackageError, OnnxPruneError
from onnxprune.job.folders import read_files, workplace
from onnxprune.job.pipeline import run
from onnxprune.job.result import Context
from onnxprune.job.scored import Scored
from onnxprune.job.search.trials import Experiment
from onnxprune.job.workers.parcel import unpacked
from onnxprune.model.files.replace import working_folder
from onnxprune.reports.tracking import tracked
from onnxprune.system.progress import StageProgress

# Runs with these differing settings are the same run.
NOT_IDENTIFYING = ("checkpoint_minutes", "data_workers", "log_to")


@dataclass(frozen=True)
class Run:
    """A finished run: `scored`, or why it failed; `seconds`: wall time."""

    name: str
    seconds: float
    scored: Scored | None
    error: str | None = None

    @property
    def model(self) -> str:
        """The name of its file."""
        return model_name(self.name)


@dataclass(frozen=True)
class Item:
    """A run to perform: the settings in which it differs from those of the experiment, and its place among `count`."""

    name: str
    settings: Mapping[str, Any]
    index: int
    count: int


@dataclass(frozen=True)
class Finished:
    """A finished run, and its files by their names, if they are not in the folder yet."""

    run: Run
    files: dict[str, bytes] = field(default_factory=dict, repr=False)


def perform(experiment: Experiment, item: Item, progress: StageProgress) -> Finished:
    """Perform a run, or go on with one that was interrupted and has left a state; a refusal is its outcome.

    Raises:
        MissingPackageError: which no other run can do without either.
    """
    experiment.use_threads()
    begun = time.perf_counter()

    def report_progress(stage: str, fraction: float) -> None:
        progress(f"run {item.index + 1} of {item.count}: {stage}", fraction)

    config = run_settings(replace(experiment.config, **item.settings))
    names = model_name(item.name), state_name(item.name)
    try:
        with working_folder(None) as copies, workplace(experiment.folder, {}) as folder:
            state = str(folder / names[1]) if config.data is not None else None
            with tracked(config, _title(item), report_progress) as tracking:
                report = run(
                    unpacked(experiment.model, copies),
                    folder / names[0],
                    replace(config, checkpoint=state, resume=state is not None),
                    tracking.progress,
                    Context(_recorded(config), looks=item.index == 0),
                ).report
                tracking.finish(report)
            files = {} if experiment.folder is not None else read_files(folder, names[0])
    except MissingPackageError:
        raise
    except OnnxPruneError as error:
        return Finished(Run(item.name, time.perf_counter() - begun, None, str(error)))
    return Finished(Run(item.name, time.perf_counter() - begun, Scored.of(report)), files)


def _title(item: Item) -> str:
    """What a tracker shows: "rate=0.9 seed=1"; where all runs are alike, the name."""
    return " ".join(f"{name}={value}" for name, value in item.settings.items()) or item.name


def run_settings(config: PruneConfig) -> PruneConfig:
    """The settings of a run's job, which is scored on validation data, if there are any."""
    validation = config.validation_data if config.data is None else None
    return replace(config, eval_data=validation, old_data=None)


def _recorded(config: PruneConfig) -> PruneConfig:
    """The settings that a run's file records: bytes of equal runs are equal."""
    defaults: dict[str, Any] = {
        each.name: each.default for each in fields(PruneConfig) if each.name in NOT_IDENTIFYING
    }
    return replace(config, **defaults)


def run_name(model: str, config: PruneConfig) -> str:
    """The name of a run, which depends on the SHA-256 of the model and all settings that the result depends on."""
    text = json.dumps([model, identity(config)], sort_keys=True)
    return f"run-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def identity(config: PruneConfig) -> dict[str, Any]:
    """The settings that a run's model and its scores depend on, in JSON types."""
    settings = json.loads(json.dumps(run_settings(config).to_dict()))
    return {key: value for key, value in settings.items() if key not in NOT_IDENTIFYING}


def model_name(name: str) -> str:
    """The file of a run's model."""
    return f"{name}.onnx"


def state_name(name: str) -> str:
    """The file of the state of a run's training, until it is finished."""
    return f"{name}.state"

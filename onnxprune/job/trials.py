"""One trial of a search: a rate, trained from the weights of a trial at a lower rate; any process can perform it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxprune.config.settings import PruneConfig
from onnxprune.config.workers import IN_TURN
from onnxprune.job.frontier import Trial, model_name, state_name
from onnxprune.job.parcel import Sendable, unpacked
from onnxprune.job.pipeline import run
from onnxprune.job.result import Context, Progress
from onnxprune.model.replace import data_names, working_folder
from onnxprune.reports.record import Report


@dataclass(frozen=True)
class Experiment:
    """What all trials of a search share.

    `folder`: the frontier, if the trials can read and write it; `threads`: of the training, which its last bits depend
    on (None: those of the process).
    """

    model: Sendable
    config: PruneConfig
    folder: Path | None
    threads: int | None


@dataclass(frozen=True)
class Attempt:
    """A trial to perform, and the states that it needs if it cannot read the frontier, by their names."""

    number: int
    rate: float
    epochs: int
    start: int | None
    states: dict[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Performed:
    """A finished trial, and its files by their names, if they are not in the frontier yet."""

    trial: Trial
    files: dict[str, bytes] = field(default_factory=dict, repr=False)


def perform(experiment: Experiment, attempt: Attempt, progress: Progress) -> Performed:
    """Perform a trial, or go on with one that was interrupted and has left a state.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it.
    """
    if experiment.threads is not None:
        from onnxprune.training.threads import use_threads

        use_threads(experiment.threads)
    begun = time.perf_counter()

    def report_progress(stage: str, fraction: float) -> None:
        progress(f"trial {attempt.number + 1}, rate {attempt.rate:.2%}: {stage}", fraction)

    with working_folder(None) as copies, _workplace(experiment.folder, attempt) as folder:
        settings = trial_settings(experiment.config, folder, attempt.number, attempt.rate, attempt.epochs)
        start = None if attempt.start is None else folder / state_name(attempt.start)
        report = run(
            unpacked(experiment.model, copies),
            folder / model_name(attempt.number),
            settings,
            report_progress,
            Context(recorded_settings(experiment.config), start=start, looks=attempt.number == 0),
        ).report
        trial = _trial(attempt, report, time.perf_counter() - begun)
        return Performed(trial, {} if experiment.folder is not None else _files(folder, attempt.number))


def trial_settings(config: PruneConfig, folder: Path, number: int, rate: float, epochs: int) -> PruneConfig:
    """The settings of a trial's job, which does not use --eval-data."""
    return replace(
        config,
        rate=rate,
        epochs=epochs,
        max_drop=None,
        max_loss=None,
        eval_data=None,
        old_data=None,
        frontier=None,
        workers=IN_TURN,
        checkpoint=str(folder / state_name(number)),
        resume=True,
    )


def recorded_settings(config: PruneConfig) -> PruneConfig:
    """The settings of a search in the files that it writes, which do not depend on who performed it and how often."""
    return replace(config, workers=IN_TURN, resume=False)


@contextmanager
def _workplace(frontier: Path | None, attempt: Attempt) -> Iterator[Path]:
    """The frontier, or a temporary folder with the states that the trial needs."""
    if frontier is not None:
        yield frontier
        return
    with working_folder(None) as parent:
        # Writing a model locks the folder that it is in, and `parent` is locked already.
        folder = parent / "trial"
        folder.mkdir()
        for name, content in attempt.states.items():
            (folder / name).write_bytes(content)
        yield folder


def _files(folder: Path, number: int) -> dict[str, bytes]:
    """The files of a trial, its external data before the model that refers to them."""
    model = model_name(number)
    names = (*data_names(Path(model)), model, state_name(number))
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def _trial(attempt: Attempt, report: Report, seconds: float) -> Trial:
    evaluation = report.evaluation
    moved = "cosine" if evaluation["outputs"][0]["agreement"] is None else "agreement"
    metric = evaluation["pruned"] or {"name": moved, "value": 1 - evaluation["drop"]}
    return Trial(
        attempt.number,
        attempt.rate,
        attempt.epochs,
        start=attempt.start,
        kept=sum(layer.kept for layer in report.layers),
        size=report.pruned.bytes,
        metric=metric["name"],
        value=metric["value"],
        baseline=(evaluation["baseline"] or {"value": 1.0})["value"],
        drop=evaluation["drop"],
        drop_error=evaluation["drop_error"],
        seconds=seconds,
        model=model_name(attempt.number),
    )

"""One trial of a search: a rate, trained from the weights of a trial at a lower rate; any process can perform it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from onnxprune.config.settings import PruneConfig
from onnxprune.config.workers import IN_TURN
from onnxprune.job.folders import read_files, workplace
from onnxprune.job.pipeline import run
from onnxprune.job.result import Context
from onnxprune.job.scored import Scored
from onnxprune.job.search.frontier import Trial, model_name, state_name
from onnxprune.job.workers.parcel import Sendable, unpacked
from onnxprune.job.workers.pool import InTurn, Workers
from onnxprune.model.files.replace import working_folder
from onnxprune.reports.record import Report
from onnxprune.system.progress import StageProgress


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

    def use_threads(self) -> None:
        """Have this process compute on the threads of the experiment."""
        if self.threads is not None:
            from onnxprune.training.threads import use_threads

            use_threads(self.threads)


def threads_for(workers: Workers) -> int | None:
    """The threads of an experiment that workers perform: those of the training in this process."""
    if isinstance(workers, InTurn):
        return None
    from onnxprune.training.threads import threads

    return threads()


@dataclass(frozen=True)
class Attempt:
    """A trial to perform, and the states that it needs if it cannot read the frontier, by their names.

    `seconds`: of its job, where the search has a time.
    """

    number: int
    rate: float
    epochs: int
    start: int | None
    seconds: float | None = None
    states: dict[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Performed:
    """A finished trial, and its files by their names, if they are not in the frontier yet."""

    trial: Trial
    files: dict[str, bytes] = field(default_factory=dict, repr=False)


def perform(experiment: Experiment, attempt: Attempt, progress: StageProgress) -> Performed:
    """Perform a trial, or go on with one that was interrupted and has left a state.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it.
    """
    experiment.use_threads()
    begun = time.perf_counter()

    def report_progress(stage: str, fraction: float) -> None:
        progress(f"trial {attempt.number + 1}, rate {attempt.rate:.2%}: {stage}", fraction)

    with working_folder(None) as copies, workplace(experiment.folder, attempt.states) as folder:
        settings = trial_settings(experiment.config, folder, attempt.number, attempt.rate, attempt.epochs)
        start = None if attempt.start is None else folder / state_name(attempt.start)
        report = run(
            unpacked(experiment.model, copies),
            folder / model_name(attempt.number),
            settings,
            report_progress,
            Context(
                recorded_settings(experiment.config),
                start=start,
                seconds=attempt.seconds,
                looks=attempt.number == 0,
            ),
        ).report
        trial = _trial(attempt, report, time.perf_counter() - begun)
        names = model_name(attempt.number), state_name(attempt.number)
        return Performed(trial, {} if experiment.folder is not None else read_files(folder, *names))


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


def _trial(attempt: Attempt, report: Report, seconds: float) -> Trial:
    scored = asdict(Scored.of(report))
    # The rate says it.
    del scored["total"]
    return Trial(
        attempt.number,
        attempt.rate,
        attempt.epochs,
        start=attempt.start,
        **scored,
        seconds=seconds,
        model=model_name(attempt.number),
    )

"""The highest rate within --max-drop and --max-loss: successive halving, with trials that start from each other.

The first round of short trainings halves the weights repeatedly until the drop can no longer be explained by the short
training. The effect of the short training is measured by its first trial, which removes nothing. Each later round has
half as many rates, closer to the highest possible one, trained twice as long (Jamieson & Talwalkar 2016). Every trial
starts from the weights and masks of the trial at the nearest lower rate, with the learning rate rewound (Renda et al.
2020).

The trials of a later round start from those of earlier rounds, so workers can perform them at once. Those of the first
round are a chain: each goes on from the one before, since an eighth of the training is too short to recover from the
removal of most weights at once.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from onnxprune.config.declare import settled
from onnxprune.config.settings import DATA_SOURCES, PruneConfig
from onnxprune.data.sources import repeatable
from onnxprune.errors import SettingError, ValidationError
from onnxprune.evaluation.metrics import drop_text
from onnxprune.job.choices.settling import as_settled, settled_beforehand
from onnxprune.job.early_checks import check_early
from onnxprune.job.folders import write_files
from onnxprune.job.pipeline import run
from onnxprune.job.requirements import check_requirements
from onnxprune.job.result import Context, Result
from onnxprune.job.search.frontier import ROUNDING, Frontier, Trial, best_within
from onnxprune.job.search.trials import (
    Attempt,
    Experiment,
    Performed,
    perform,
    recorded_settings,
    threads_for,
    trial_settings,
)
from onnxprune.job.store import unwritten
from onnxprune.job.workers.hiring import hired
from onnxprune.job.workers.parcel import sendable
from onnxprune.job.workers.pool import Workers
from onnxprune.model.files.io import ModelLike, Source
from onnxprune.system.processes import is_only_process
from onnxprune.system.progress import StageProgress
from onnxprune.system.trust import trust

# Rates of each round after the first; the last one is trained for all of --epochs.
ROUNDS = (4, 2, 1)
# Of --time, the part for the trials: what is left writes and evaluates the model.
TRIALS_PART = 0.95
LEAST_SECONDS = 1.0
# The first round tries this range of halvings of the weights, and stops after `MOST_FAILURES` failures in a row.
FIRST_HALVINGS, LAST_HALVINGS = 2, 10
MOST_FAILURES = 2


def search(source: ModelLike, target: Path | None, config: PruneConfig, progress: StageProgress) -> Result:
    """Find the highest rate whose model stays within --max-drop and --max-loss on validation data, and write it.

    Raises:
        ValidationError: none does; the target is not changed.
        OnnxPruneError: what is wrong, and how to fix it.
    """
    begun = time.monotonic()
    check_requirements(config)
    trust(config.allow_links, config.custom_ops)
    if not is_only_process():
        raise SettingError("a search runs in one process: start it without torchrun, or give a --rate")
    with ExitStack() as stack:
        if config.frontier is not None:
            folder = Path(config.frontier)
        elif target is not None:
            folder = target.with_name(f"{target.name}.frontier")
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = DATA_SOURCES
        config = replace(config, **{name: repeatable(getattr(config, name)) for name in data})
        origin = check_early(source, target, config)
        about = {
            "model": origin.sha256,
            "settings": json.loads(json.dumps(config.training())),
            "--max-drop": config.max_drop,
            "--max-loss": config.max_loss,
        }
        config, settings = settled_beforehand(source, config), config
        helpers = stack.enter_context(hired(config.workers, config.device, max(ROUNDS)))
        frontier = Frontier.begin(folder, about, config.resume)
        try:
            deadline = None if settings.seconds is None else begun + TRIALS_PART * settings.seconds
            searcher = _Searcher(source, origin, config, frontier, helpers, progress, deadline)
            result = searcher.find(target, as_settled(settings, config))
        finally:
            if not frontier.trials:
                frontier.discard()
        if config.frontier is None and target is None:
            return result
        note = f"To list or use the other trials: `onnxprune pick {folder}`."
        return replace(result, report=replace(result.report, notes=(*result.report.notes, note)))


class _Searcher:
    """One search; rates are given as halvings h of the weights: the rate is 1 - 2^-h.

    `deadline`: of the trials, by `time.monotonic()`.
    """

    def __init__(
        self,
        source: ModelLike,
        origin: Source,
        config: PruneConfig,
        frontier: Frontier,
        workers: Workers,
        progress: StageProgress,
        deadline: float | None = None,
    ):
        self._source = source
        self._config = config
        self._deadline = deadline
        # Known once the first trial tells how good the input model is.
        self._max_drop = math.inf
        self._frontier = frontier
        self._workers = workers
        self._progress = progress
        self._experiment = Experiment(
            sendable(origin, workers.here),
            config,
            frontier.folder if workers.here else None,
            threads_for(workers),
        )
        # Trials of an interrupted run, in the order in which this run repeats them.
        self._done = iter(list(frontier.trials))
        self._trials: list[Trial] = []
        # The drop after one epoch of training without any pruning, at most.
        self._training_drop = 0.0

    def find(self, target: Path | None, given: PruneConfig) -> Result:
        """Search, and write the best model; `given`: the settings that it records."""
        lower, upper = self._descend()
        for round_ in range(1, len(ROUNDS) + 1):
            if self._late:
                break
            lower, upper = self._round(lower, upper, round_)
        chosen = best_within(self._trials, self._max_drop)
        if chosen is None or not chosen.rate:
            raise self._none_within(target)
        trials = self._frontier.records(chosen)
        # The trial's training is finished: the job resumes from its checkpoint and writes the target.
        settings = trial_settings(
            self._config, self._frontier.folder, chosen.number, chosen.rate, chosen.epochs
        )
        settings = replace(settings, eval_data=self._config.eval_data, old_data=self._config.old_data)
        result = run(
            self._source, target, settings, self._progress, Context(recorded_settings(given), trials)
        )
        self._frontier.finish()
        report = result.report
        notes = (*self._notes(chosen), *report.notes)
        seconds = {"search": sum(trial.seconds for trial in self._trials)} | report.seconds
        return replace(result, report=replace(report, notes=notes, seconds=seconds))

    def _descend(self) -> tuple[float, float]:
        """The first round: the most halvings that look possible, and the most that were tried."""
        tried = range(FIRST_HALVINGS, LAST_HALVINGS + 1)
        (control,) = self._wave([0.0], 0, len(tried) + 1)
        self._max_drop = self._limit(control.baseline)
        self._training_drop = max(0.0, control.drop) * control.epochs
        lower, chain = 0.0, []
        for halvings in tried:
            chain += self._wave([halvings], 0, tried.stop - halvings)
            failures = self._failures(chain)
            if not failures:
                lower = halvings
            if failures == MOST_FAILURES or self._late:
                break
        return lower, max(halvings, lower + 1)

    def _limit(self, baseline: float) -> float:
        """The largest drop, in the unit of the metric, for a value of the input model."""
        drop, loss = self._config.max_drop, self._config.max_loss
        limits = [drop, None if loss is None else loss * abs(baseline)]
        return min(limit for limit in limits if limit is not None)

    def _round(self, lower: float, upper: float, round_: int) -> tuple[float, float]:
        """A round of rates between one that looks possible and one that does not; returns both bounds, updated."""
        rates = ROUNDS[round_ - 1]
        reached = best_within(self._trials, self._max_drop)
        possible = 0.0 if reached is None else _halvings(reached.rate)
        if possible >= lower - ROUNDING:
            steps = np.linspace(lower, upper, rates + 2)[1:-1]
        else:
            # The lower bound only looks possible: it is tried again with longer training.
            steps = np.linspace(lower, upper, rates + 1)[:-1]
        most = max(1, rates // 2)
        tried = self._wave(
            steps.tolist(),
            round_,
            math.ceil(rates / self._workers.count),
            lambda trials: self._failures(trials) == most,
        )
        promising = [step for step, trial in zip(steps, tried, strict=False) if self._promising(trial)]
        possible = float(promising[-1]) if promising else possible
        return possible, float(steps[len(tried) - 1]) if self._failures(tried) == most else upper

    def _failures(self, trials: Sequence[Trial]) -> int:
        """The number of trials since the last one that looks possible."""
        return next(
            (count for count, trial in enumerate(reversed(trials)) if self._promising(trial)), len(trials)
        )

    def _promising(self, trial: Trial) -> bool:
        """Whether the drop could be within --max-drop, given its standard error and the short training."""
        slack = (trial.drop_error or 0.0) + self._training_drop / trial.epochs
        return trial.drop <= self._max_drop + slack + ROUNDING

    def _wave(
        self,
        steps: Sequence[float],
        round_: int,
        turns: int,
        enough: Callable[[Sequence[Trial]], bool] = lambda trials: False,
    ) -> list[Trial]:
        """Try rates, all from trials before this wave; those after the first one at which it is `enough` do not count.

        `turns`: how often the time of one trial passes until the round ends. A trial that an interrupted run has
        recorded is looked up.
        """
        epochs = self._epochs(round_)
        first = len(self._trials)
        attempts = [self._attempt(number, _rate(step), epochs) for number, step in enumerate(steps, first)]
        for attempt in attempts:
            if (trial := next(self._done, None)) is None:
                break
            assert (trial.rate, trial.epochs) == (attempt.rate, epochs), "a search is deterministic"
            self._trials.append(trial)
            if enough(self._trials[first:]):
                return self._trials[first:]
        if len(self._trials) == first + len(attempts):
            return self._trials[first:]
        seconds = self._seconds(round_, turns)
        left = [
            self._packed(replace(attempt, seconds=seconds))
            for attempt in attempts[len(self._trials) - first :]
        ]
        outcomes = self._workers.perform(perform, self._experiment, left, self._progress, self._receive)
        with closing(outcomes):
            for performed in outcomes:
                self._trials.append(performed.trial)
                if last := enough(self._trials[first:]):
                    # Their files go before this trial is recorded: later ones of the same numbers have other rates.
                    outcomes.close()
                    self._frontier.forget(range(performed.trial.number + 1, first + len(attempts)))
                self._frontier.add(performed.trial)
                if last:
                    break
        # Not earlier: the trials of a wave start from any state before it.
        self._remove_states(self._trials)
        return self._trials[first:]

    def _attempt(self, number: int, rate: float, epochs: int) -> Attempt:
        start = max(
            (trial for trial in self._trials if trial.rate <= rate),
            key=lambda trial: (trial.rate, trial.number),
            default=None,
        )
        return Attempt(number, rate, epochs, None if start is None else start.number)

    def _packed(self, attempt: Attempt) -> Attempt:
        """With the states that workers elsewhere need: its start, and its own where it was interrupted."""
        if self._experiment.folder is not None:
            return attempt
        numbers = (number for number in (attempt.start, attempt.number) if number is not None)
        states = [state for number in numbers if (state := self._frontier.state(number)).exists()]
        return replace(attempt, states={state.name: state.read_bytes() for state in states})

    def _receive(self, performed: Performed) -> None:
        write_files(self._frontier.folder, performed.files)

    def _remove_states(self, trials: Sequence[Trial]) -> None:
        """Keep the last state of each rate from the best one on: later trials or the result can start from it."""
        reached = best_within(trials, self._max_drop)
        last = {trial.rate: trial.number for trial in trials if reached is None or trial.rate >= reached.rate}
        self._frontier.keep_states(set(last.values()) | ({reached.number} if reached is not None else set()))

    def _epochs(self, round_: int) -> int:
        return max(1, round(settled(self._config.epochs) / 2 ** (len(ROUNDS) - round_)))

    @property
    def _late(self) -> bool:
        """Whether the time is over: what trials take beside their training is not in their hands."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _seconds(self, round_: int, turns: int) -> float | None:
        """The time of each trial of a round, of what is left: in each round, twice that of the one before."""
        if self._deadline is None:
            return None
        of_rounds = [
            math.ceil(rates / self._workers.count) * 2**later for later, rates in enumerate(ROUNDS, 1)
        ]
        parts = turns * 2**round_ + sum(of_rounds[round_:])
        return max(LEAST_SECONDS, (self._deadline - time.monotonic()) * 2**round_ / parts)

    def _notes(self, chosen: Trial) -> list[str]:
        text = partial(drop_text, chosen.metric)
        error = "" if chosen.drop_error is None else f" (standard error {text(chosen.drop_error)})"
        notes = [
            f"The highest rate of {len(self._trials)} trials with a drop of at most {text(self._max_drop)} on "
            f"validation data is {chosen.rate:.2%}, with a drop of {text(chosen.drop)}{error}."
        ]
        if (chosen.drop_error or 0.0) > self._max_drop / 2:
            notes.append(
                "The validation data is too small to measure such a drop reliably: give a larger --validation-split or "
                "more --validation-data."
            )
        if self._config.validation_data is None:
            notes.append(
                "If the input model was trained on the validation samples, its error on them is too low, and so is the "
                "rate that the search finds: give --validation-data that it was not trained on."
            )
        return notes

    def _none_within(self, target: Path | None) -> ValidationError:
        nearest = min((trial for trial in self._trials if trial.rate), key=lambda trial: trial.drop)
        text = partial(drop_text, nearest.metric)
        more = "--epochs" if self._deadline is None else "--time"
        return ValidationError(
            f"no trial has a drop of at most {text(self._max_drop)}: the closest of {len(self._trials)} has a drop of "
            f"{text(nearest.drop)} at a rate of {nearest.rate:.2%}; {unwritten(target)}: give more "
            f"{more}, a larger --max-drop, or --validation-data that the input model was not trained on"
        )


def _rate(halvings: float) -> float:
    return 1 - 2.0**-halvings


def _halvings(rate: float) -> float:
    return -math.log2(1 - rate)

"""The trials of a search on disk: an index, and the models of the Pareto frontier, for `onnxprune pick`.

The index is replaced atomically, after the models that it names are complete, so it is valid whenever the process ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnxprune.errors import SettingError
from onnxprune.job.folders import (
    SEARCH_INDEX,
    SWEEP_INDEX,
    make_folder,
    read_index,
    remove_files,
    write_index,
)

INDEX = SEARCH_INDEX
ADVICE = "give the .frontier folder that `onnxprune --max-drop` wrote"
# Drops are differences of rounded numbers: 5 errors of 1,000 must not count as more than 0.5 %.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Trial:
    """A rate that was tried, and how good the fine-tuned model is on validation data.

    `kept`: number of non-zero weights; `size`: bytes of the file; `value`: of the `metric`; `baseline`: that of the
    input model; `drop`: how much worse the model is on the same samples; `drop_error`: the standard error of `drop`
    (None: not known); `seconds`: wall time.
    """

    number: int
    rate: float
    epochs: int
    start: int | None
    """The trial whose weights and masks it started from; None: the input model."""
    kept: int
    size: int
    metric: str
    value: float
    baseline: float
    drop: float
    drop_error: float | None
    seconds: float
    model: str | None
    """Its file in the folder; None if another trial dominates this one."""

    def dominates(self, other: Trial) -> bool:
        """Whether this trial has at least the rate of the other and at most its drop."""
        return self.rate >= other.rate and self.drop <= other.drop


class Frontier:
    """A folder of trials; `origin` identifies the model and the settings of the search."""

    def __init__(self, folder: Path, origin: dict[str, Any], trials: list[Trial], finished: bool):
        self.folder = folder
        self.trials = trials
        self._origin = origin
        self._finished = finished

    @classmethod
    def begin(cls, folder: Path, origin: dict[str, Any], resume: bool) -> Frontier:
        """A new folder, one without trials, or with `resume` one of an interrupted search.

        Raises:
            SettingError: it holds trials already, or those of another job.
            OutputError: it cannot be written.
        """
        frontier = cls.read(folder) if (folder / INDEX).exists() else None
        if frontier is None or not frontier.trials:
            make_folder(folder, "--frontier")
            frontier = cls(folder, origin, [], finished=False)
            try:
                frontier._remove_states()
                frontier._write()
            except BaseException:
                frontier.discard()
                raise
            return frontier
        if not resume:
            raise SettingError(
                f"{folder} holds a search already: continue it with --resume, use its trials with `onnxprune pick`, "
                "or give another --frontier"
            )
        changed = [name for name, value in origin.items() if frontier._origin.get(name) != value]
        if changed:
            raise SettingError(
                f"{folder} belongs to a search with other {', '.join(changed)}: use the same ones, or give another "
                "--frontier"
            )
        if frontier._finished:
            raise SettingError(
                f"the search in {folder} is finished: use its trials with `onnxprune pick`, or give another --frontier"
            )
        return frontier

    @classmethod
    def read(cls, folder: Path) -> Frontier:
        """The trials in a folder.

        Raises:
            SettingError: it holds no search, or its index cannot be read.
        """
        if (folder / SWEEP_INDEX).exists() and not (folder / INDEX).exists():
            raise SettingError(
                f"{folder} is the folder of a sweep, of which its command writes the models: `onnxprune sweep IN.onnx "
                f"OUT.onnx --folder {folder} --resume`, with the same grid and --max-drop, --max-loss or --max-bytes"
            )
        content = read_index(folder, INDEX, "search", ADVICE)
        try:
            trials = [Trial(**trial) for trial in content["trials"]]
            return cls(folder, content["origin"], trials, content["finished"])
        except (KeyError, TypeError):
            raise SettingError(
                f"{folder} is not the folder of a search: its {INDEX} is damaged, or of another version; {ADVICE}"
            ) from None

    def add(self, trial: Trial) -> None:
        """Record a trial whose model is written; the models of dominated trials are deleted.

        Raises:
            OutputError: the index cannot be written.
        """
        # Of two equal trials the later one keeps its model: it is the one that is picked.
        if any(other.dominates(trial) and not trial.dominates(other) for other in self.trials):
            trial = replace(trial, model=None)
        self.trials = [
            replace(other, model=None) if trial.dominates(other) else other for other in self.trials
        ] + [trial]
        self._write()
        named = {each.model for each in self.trials}
        for each in self.trials:
            if (name := model_name(each.number)) not in named:
                remove_files(self.folder, [name])

    def forget(self, numbers: Iterable[int]) -> None:
        """Remove the files of trials that were begun, and are not going to be recorded."""
        for number in numbers:
            remove_files(self.folder, (state_name(number), model_name(number)))

    def records(self, chosen: Trial | None) -> tuple[dict[str, Any], ...]:
        """The trials in JSON types; `chosen` is true for the one chosen."""
        return tuple(
            asdict(trial) | {"chosen": chosen is not None and trial.number == chosen.number}
            for trial in self.trials
        )

    def state(self, number: int) -> Path:
        """The checkpoint of a trial's training, kept until the search ends."""
        return self.folder / state_name(number)

    def keep_states(self, needed: set[int]) -> None:
        """Remove the states of all other trials."""
        for trial in self.trials:
            if trial.number not in needed:
                self.state(trial.number).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the folder of a search without trials; other files in it are kept."""
        self._remove_states()
        (self.folder / INDEX).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def finish(self) -> None:
        """Record that the search is finished, and remove the states."""
        self._finished = True
        self._write()
        self._remove_states()

    def _remove_states(self) -> None:
        for state in self.folder.glob("trial-*.state"):
            state.unlink()

    def _write(self) -> None:
        content = {
            "origin": self._origin,
            "finished": self._finished,
            "trials": [asdict(trial) for trial in self.trials],
        }
        write_index(self.folder / INDEX, content)


def model_name(number: int) -> str:
    """The file of a trial's model."""
    return f"trial-{number:02}.onnx"


def state_name(number: int) -> str:
    """The file of the state of a trial's training."""
    return f"trial-{number:02}.state"


def best_within(trials: Iterable[Trial], max_drop: float) -> Trial | None:
    """The trial of the highest rate that has weights and at most this drop; None if there is none."""
    fitting = [trial for trial in trials if trial.kept and trial.drop <= max_drop + ROUNDING]
    return max(fitting, key=lambda trial: (trial.rate, -trial.drop, trial.number), default=None)


def best_at_least(trials: Iterable[Trial], rate: float) -> Trial | None:
    """The trial of the smallest drop with at least this rate; None if there is none."""
    fitting = [trial for trial in trials if trial.rate >= rate]
    return min(fitting, key=lambda trial: (trial.drop, -trial.rate, -trial.number), default=None)

"""The trials of a search on disk: an index, and a model for each that no other beats, to pick from without a new run.

The index is replaced whole, and names only models that are whole already: whenever the process ends, what it says
is there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnxprune.errors import OutputError, SettingError
from onnxprune.model.replace import data_names, replacing

INDEX = "frontier.json"
# Drops are differences of numbers that are rounded themselves: 5 of 1,000 are not more than 0.5 %.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Trial:
    """A rate that was tried: what is left of the weights, and how good the retrained model is on held-out samples.

    `kept` counts the weights left, `size` the file's bytes; `value` is the model's `metric`; `drop` says how much worse
    than the input model it is on the same samples, `drop_error` the standard error of that (None: not known);
    `seconds` are wall time.
    """

    number: int
    rate: float
    epochs: int
    start: int | None
    """The trial whose weights and masks it began with; None: the input model."""
    kept: int
    size: int
    metric: str
    value: float
    drop: float
    drop_error: float | None
    seconds: float
    model: str | None
    """Its file in the folder; None where another trial removes as much at no larger drop."""

    def beats(self, other: Trial) -> bool:
        return self.rate >= other.rate and self.drop <= other.drop


class Frontier:
    """A folder of trials; `origin` says what they are trials of, by name."""

    def __init__(self, folder: Path, origin: dict[str, Any], trials: list[Trial], finished: bool):
        self.folder = folder
        self.trials = trials
        self._origin = origin
        self._finished = finished

    @classmethod
    def begin(cls, folder: Path, origin: dict[str, Any], resume: bool) -> Frontier:
        """A new folder, or one that holds no trial yet, or with `resume` one to go on with.

        Raises:
            SettingError: it holds trials already, or those of another job.
            OutputError: it cannot be written.
        """
        frontier = cls.read(folder) if (folder / INDEX).exists() else None
        if frontier is None or not frontier.trials:
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise OutputError(f"--frontier {folder} cannot be made: {error.strerror}") from error
            frontier = cls(folder, origin, [], finished=False)
            frontier._forget_all()
            frontier._write()
            return frontier
        if not resume:
            raise SettingError(
                f"{folder} holds a search already: go on with it by --resume, take a point of it by "
                f"`onnxprune pick`, or name another --frontier"
            )
        changed = [name for name, value in origin.items() if frontier._origin.get(name) != value]
        if changed:
            raise SettingError(
                f"{folder} belongs to a search with other {', '.join(changed)}: repeat its settings, or name "
                "another --frontier"
            )
        if frontier._finished:
            raise SettingError(
                f"the search in {folder} is finished: take a point of it by `onnxprune pick`, or name another "
                "--frontier"
            )
        return frontier

    @classmethod
    def read(cls, folder: Path) -> Frontier:
        """The trials in a folder.

        Raises:
            SettingError: it holds none, or an index that cannot be read.
        """
        try:
            content = json.loads((folder / INDEX).read_text())
            trials = [Trial(**trial) for trial in content["trials"]]
            return cls(folder, content["origin"], trials, content["finished"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingError(
                f"{folder} is no folder of a search ({type(error).__name__}): give the one that "
                "`onnxprune --max-drop` left beside its output"
            ) from None

    def add(self, trial: Trial) -> None:
        """Record a trial whose model is in place; models that it beats go.

        Raises:
            OutputError: the index cannot be written.
        """
        if any(other.beats(trial) for other in self.trials):
            trial = replace(trial, model=None)
        self.trials = [
            replace(other, model=None) if trial.beats(other) else other for other in self.trials
        ] + [trial]
        self._write()
        named = {each.model for each in self.trials}
        for each in self.trials:
            if (name := model_name(each.number)) not in named:
                for file in (name, *data_names(Path(name))):
                    (self.folder / file).unlink(missing_ok=True)

    def records(self, chosen: Trial | None) -> tuple[dict[str, Any], ...]:
        """The trials in JSON types, each with whether it is the one chosen."""
        return tuple(
            asdict(trial) | {"chosen": chosen is not None and trial.number == chosen.number}
            for trial in self.trials
        )

    def state(self, number: int) -> Path:
        """Where the training of a trial is kept until the search ends."""
        return self.folder / f"trial-{number:02}.state"

    def forget(self, needed: set[int]) -> None:
        """Remove the states of all trials but these."""
        for trial in self.trials:
            if trial.number not in needed:
                self.state(trial.number).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove a folder that holds no trial, and nothing else."""
        self._forget_all()
        (self.folder / INDEX).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def finish(self) -> None:
        """Record that the search is over, and remove what only going on with it needs."""
        self._finished = True
        self._write()
        self._forget_all()

    def _forget_all(self) -> None:
        for state in self.folder.glob("trial-*.state"):
            state.unlink()

    def _write(self) -> None:
        content = {
            "origin": self._origin,
            "finished": self._finished,
            "trials": [asdict(trial) for trial in self.trials],
        }
        try:
            with replacing(self.folder / INDEX, "w") as file:
                json.dump(content, file, indent=2)
        except OSError as error:
            raise OutputError(f"{self.folder / INDEX} cannot be written: {error.strerror}") from error


def model_name(number: int) -> str:
    """The file of a trial's model."""
    return f"trial-{number:02}.onnx"


def best_within(trials: Iterable[Trial], max_drop: float) -> Trial | None:
    """The trial of the highest rate that is worse by no more than this, if there is one."""
    fitting = [trial for trial in trials if trial.drop <= max_drop + ROUNDING]
    return max(fitting, key=lambda trial: (trial.rate, -trial.drop, trial.number), default=None)


def best_beyond(trials: Iterable[Trial], rate: float) -> Trial | None:
    """The best trial of those that remove this much or more, if there is one."""
    fitting = [trial for trial in trials if trial.rate >= rate]
    return min(fitting, key=lambda trial: (trial.drop, -trial.rate, -trial.number), default=None)

"""The results of a sweep: the mean and the spread over the seeds of each combination."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxprune.job.scored import Scored
from onnxprune.job.sweep.runs import Run


@dataclass(frozen=True)
class Spread:
    """The mean over the seeds, and the sample standard deviation; None with one seed."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of the values of each seed, at least one."""
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation)


@dataclass(frozen=True)
class Combination:
    """A combination of the grid's values, by setting, and its runs, one for each seed in order."""

    values: Mapping[str, Any]
    runs: tuple[Run, ...]

    @property
    def scored(self) -> list[Scored]:
        """The results of the runs that did not fail."""
        return [run.scored for run in self.runs if run.scored is not None]

    @property
    def errors(self) -> list[str]:
        """Why runs failed, each reason once."""
        return list(dict.fromkeys(run.error for run in self.runs if run.error is not None))

    def over_seeds(self, value: Callable[[Scored], float]) -> Spread:
        """The mean and the spread of a value of the runs that did not fail, of which there is at least one."""
        return Spread.of([value(scored) for scored in self.scored])

    def to_dict(self) -> dict[str, Any]:
        """In JSON types; without `mean` and `deviation` if all runs failed."""
        found: dict[str, Any] = {
            "values": dict(self.values),
            "runs": [run.name for run in self.runs],
            "failed": len(self.runs) - len(self.scored),
            "errors": self.errors,
            "seconds": statistics.fmean(run.seconds for run in self.runs),
        }
        if not self.scored:
            return found
        spreads = {name: self.over_seeds(value) for name, value in MEASURED.items()}
        return found | {
            "metric": self.scored[0].metric,
            "mean": {name: spread.mean for name, spread in spreads.items()},
            "deviation": {name: spread.deviation for name, spread in spreads.items()},
        }


MEASURED: Mapping[str, Callable[[Scored], float]] = {
    "rate": lambda scored: 1 - scored.kept / scored.total if scored.total else 0.0,
    "kept": lambda scored: scored.kept,
    "bytes": lambda scored: scored.size,
    "value": lambda scored: scored.value,
    "baseline": lambda scored: scored.baseline,
    "drop": lambda scored: scored.drop,
}
"""What is averaged over the seeds; `rate` is the fraction of the weights that is removed."""


@dataclass(frozen=True)
class Chosen:
    """The combination that is written, and the best of its runs on validation data."""

    combination: Combination
    run: Run


@dataclass(frozen=True)
class Sweep:
    """A finished sweep.

    `axes`: the settings with several values; `chosen`: None without a budget; `path`: the file written, if any;
    `evaluation` and `old_evaluation`: `Evaluation.to_dict()` of that file on --eval-data and --old-data, if given.
    """

    folder: Path
    axes: Mapping[str, list[Any]]
    seeds: tuple[int, ...]
    combinations: tuple[Combination, ...]
    chosen: Chosen | None = None
    path: Path | None = None
    evaluation: dict[str, Any] | None = None
    old_evaluation: dict[str, Any] | None = None

    @property
    def failed(self) -> list[Run]:
        """The runs that failed."""
        return [run for each in self.combinations for run in each.runs if run.error is not None]

    def to_dict(self) -> dict[str, Any]:
        """The sweep in JSON types, as in sweep.json, which also has the settings that all runs share."""
        chosen = self.chosen
        return {
            "axes": dict(self.axes),
            "seeds": list(self.seeds),
            "combinations": [
                each.to_dict() | {"chosen": chosen is not None and each is chosen.combination}
                for each in self.combinations
            ],
            "runs": [asdict(run) for each in self.combinations for run in each.runs],
            "chosen": None if chosen is None else chosen.run.name,
            "output": None if self.path is None else str(self.path),
            "evaluation": self.evaluation,
            "old_evaluation": self.old_evaluation,
        }

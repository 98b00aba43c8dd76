"""The choice of a combination within a budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from onnxprune.config.sweep import SweepSettings
from onnxprune.errors import ValidationError
from onnxprune.evaluation.metrics import drop_text
from onnxprune.job.search.frontier import ROUNDING
from onnxprune.job.sweep.results import Chosen, Combination
from onnxprune.reports.text import bytes_text

# Removal of dead neurons makes numbers of weights differ by less, at one rate.
EQUAL = 1.01


@dataclass(frozen=True)
class Budget:
    """Limits of the mean drop, absolute or relative to the input model's value, and of the largest file."""

    max_drop: float | None = None
    max_loss: float | None = None
    max_bytes: int | None = None

    @classmethod
    def of(cls, settings: SweepSettings) -> Budget:
        """The limits of the settings; the size is a number after their check."""
        size = settings.max_bytes
        return cls(settings.max_drop, settings.max_loss, None if size is None else int(size))

    def choose(self, combinations: Iterable[Combination]) -> Chosen:
        """The one with the smallest mean drop; within a limit of the drop, of those with the fewest weights.

        Of its runs, the one with the smallest drop. Combinations of which a run failed are not considered.

        Raises:
            ValidationError: none is within the budget.
        """
        complete = [each for each in combinations if not each.errors]
        fitting = [each for each in complete if self.holds(each)]
        if not fitting:
            raise self._none(complete)
        if self.max_drop is not None or self.max_loss is not None:
            fewest = min(_means(each)[1] for each in fitting)
            fitting = [each for each in fitting if _means(each)[1] <= fewest * EQUAL]
        chosen = min(fitting, key=by_mean_drop)
        drops = [scored.drop for scored in chosen.scored]
        return Chosen(chosen, chosen.runs[drops.index(min(drops))])

    def holds(self, combination: Combination) -> bool:
        """Whether a combination is within all limits; a drop that is not a number is not."""
        drop, _, _ = _means(combination)
        within = all(drop <= limit + ROUNDING for limit in self.limits(combination))
        largest = max(scored.size for scored in combination.scored)
        return math.isfinite(drop) and within and (self.max_bytes is None or largest <= self.max_bytes)

    def limits(self, combination: Combination) -> list[float]:
        """The limits of the mean drop, in the unit of the metric."""
        baseline = statistics.fmean(abs(scored.baseline) for scored in combination.scored)
        limits = [self.max_drop, None if self.max_loss is None else self.max_loss * baseline]
        return [limit for limit in limits if limit is not None]

    def _none(self, complete: list[Combination]) -> ValidationError:
        texts = []
        if complete:
            nearest = min(complete, key=by_mean_drop)
            drop, _, _ = _means(nearest)
            metric = nearest.scored[0].metric
            texts += [f"a mean drop of at most {drop_text(metric, limit)}" for limit in self.limits(nearest)]
            smallest = min(max(scored.size for scored in each.scored) for each in complete)
            found = f"the smallest mean drop is {drop_text(metric, drop)}, the smallest file {bytes_text(smallest)}"
        else:
            found = "each has a run that failed"
        if self.max_bytes is not None:
            texts.append(f"files of at most {bytes_text(self.max_bytes)}")
        wanted = " and ".join(texts) or "runs that all ended"
        return ValidationError(
            f"no combination of the grid has {wanted}: {found}; nothing was written: allow more, or extend the grid, "
            "and go on with --resume"
        )


def by_mean_drop(combination: Combination) -> tuple[float, float, float]:
    """For sorting: a small drop, then few weights, then small files; what is not a number comes last."""
    drop, kept, size = _means(combination)
    return drop if math.isfinite(drop) else math.inf, kept, size


def _means(combination: Combination) -> tuple[float, float, float]:
    """The means of drop, non-zero weights and bytes."""
    scored = combination.scored
    return (
        statistics.fmean(each.drop for each in scored),
        statistics.fmean(each.kept for each in scored),
        statistics.fmean(each.size for each in scored),
    )

"""The metrics of a job, for the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.data.batch import Batch
from onnxprune.evaluation.labels import LabelForm
from onnxprune.evaluation.scores import Metrics, RunningScores


class Scorer:
    """Scores of validation data, see `training.scoring.Scorer`; the primary metric selects the best state."""

    def __init__(self, metrics: Metrics, forms: Mapping[str, LabelForm], names: Sequence[str]):
        self._made = metrics, forms, names
        self._scores = RunningScores(*self._made)

    def add(self, outputs: Sequence[np.ndarray], batch: Batch) -> None:
        """Count a batch."""
        self._scores.add(outputs, batch)

    def records(self) -> Any:
        """What was counted, to be sent to other processes."""
        return self._scores.records()

    def merged(self, records: Sequence[Any]) -> tuple[str | None, float | None, bool]:
        """The primary metric's name and value over all processes, and whether higher is better."""
        together = self._scores
        if len(records) > 1:
            together = RunningScores(*self._made)
            together.merge(records)
        results = together.results()
        if not results:
            return None, None, True
        return results[0].name, results[0].value, results[0].metric.higher_is_better

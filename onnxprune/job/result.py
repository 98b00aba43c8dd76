"""The result of a job, and its context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset
from onnxprune.reports.record import Report


@dataclass(frozen=True)
class Result:
    """The result of a job: its report, and the pruned model."""

    report: Report
    path: Path | None
    """The file written; None without an output path."""
    _proto: onnx.ModelProto | None

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The pruned model, weights included."""
        if self._proto is not None:
            return self._proto
        assert self.path is not None
        return onnx.load(self.path)


@dataclass(frozen=True)
class Context:
    """The context of a job.

    In a search: its `settings`, its `trials` so far, and `start`, the checkpoint of a trial at a lower rate, whose
    weights and masks this job starts from, and `seconds`, the part of --time that is this job's. `data`: the data of
    --data, if it has been read already. `looks`: whether the job tells how good the input model is before it starts.
    """

    settings: PruneConfig | None = None
    trials: tuple[dict[str, Any], ...] = ()
    start: Path | None = None
    seconds: float | None = None
    data: Dataset | None = None
    looks: bool = True


ALONE = Context()

"""What a job is told, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset
from onnxprune.reports.record import Report

# Called with a stage's name and the fraction of it that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Result:
    """What a job leaves: the record of how it went, and the pruned model."""

    report: Report
    path: Path | None
    """The file written; None when no output was asked for."""
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
    """What a job is a part of.

    Of a search: the settings that were asked for, its trials so far, and the checkpoint of a trial at a smaller rate,
    whose weights and masks this one starts from. `data`: what `--data` names, where it has been read already.
    """

    settings: PruneConfig | None = None
    trials: tuple[dict[str, Any], ...] = ()
    start: Path | None = None
    data: Dataset | None = None


ALONE = Context()

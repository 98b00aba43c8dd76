"""`onnxprune.prune`: prune a model, or search for the highest rate within an accuracy drop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onnxprune.commands.keywords import takes
from onnxprune.config.settings import PruneConfig, job_settings
from onnxprune.job.pipeline import run
from onnxprune.job.result import Result
from onnxprune.job.search.job import search
from onnxprune.model.files.io import ModelLike
from onnxprune.reports.tracking import title_of, tracked
from onnxprune.system.progress import StageProgress


@takes(PruneConfig)
def prune(
    model: ModelLike,
    output: str | os.PathLike[str] | None = None,
    progress: StageProgress | None = None,
    **settings: Any,
) -> Result:
    """Prune a model, fine-tune it if data is given, and evaluate the result in onnxruntime.

    `model`: a path, a ModelProto or an onnx_ir.Model, which is not changed. `output`: the file to write; without it the
    result stays in memory. `progress`: called with the name of a stage and the fraction of it that is done. The
    settings are the fields of `PruneConfig`, named like the flags. With `max_drop` and without `rate`, it searches for
    the highest rate within that drop.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it; nothing was written.
    """
    config = job_settings(**settings)
    job = search if config.searches else run
    target = None if output is None else Path(output)
    with tracked(config, title_of(target), progress or _silent) as tracking:
        result = job(model, target, config, tracking.progress)
        tracking.finish(result.report)
    return result


def _silent(stage: str, fraction: float) -> None:
    """Ignore the progress."""

"""What a user asks for: one job of the pipeline, or a search for its rate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onnxprune.config import PruneConfig
from onnxprune.model.io import ModelLike
from onnxprune.pipeline import Progress, Result, run
from onnxprune.search import search


def prune(
    model: ModelLike,
    output: str | os.PathLike | None = None,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Result:
    """Prune a model, retrain it where there is data, and judge the result in onnxruntime.

    `model` is a path, a ModelProto or an onnx_ir.Model, which is not changed; `output` the file to write (none:
    the result stays in memory); the settings are the fields of `PruneConfig`, named as the flags. With `max_drop` and
    neither `rate` nor `quality`, the highest rate within it is searched for.

    Raises:
        OnnxPruneError: what is wrong, in a sentence that says the mend; nothing was written.
    """
    target = None if output is None else Path(output)
    return perform(model, target, PruneConfig(**settings), progress or (lambda stage, fraction: None))


def perform(source: ModelLike, target: Path | None, config: PruneConfig, progress: Progress) -> Result:
    """The job, its settings checked; see `prune`."""
    return (search if config.searches else run)(source, target, config, progress)

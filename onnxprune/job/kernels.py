"""The kernels of a job's sparse nodes, and the check that a converted model still gives the same outputs."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.data.random import random_feeds
from onnxprune.errors import DataError, ModelFileError
from onnxprune.evaluation.comparison import compare
from onnxprune.evaluation.runs import BATCH_SAMPLES
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.samples.inputs import JobData
from onnxprune.model.files.staging import staging
from onnxprune.sparse.choose import choose_auto, choose_portable
from onnxprune.system.progress import Progress

# Largest relative difference between two forms of one float32 model that differ by rounding alone.
ROUNDING = 1e-4


def place_kernels(model: ir.Model, config: PruneConfig, data: JobData, progress: Progress) -> None:
    """Choose for each sparse node between sparse kernel and dense, for one test sample or the shapes asked for."""
    feeds = data.a_run().feeds()
    if config.input_shape:
        shapes = {name: array.shape for name, array in feeds.items()} | config.input_shapes
        feeds = random_feeds(data.specs, shapes, config.seed)
    if config.kernels == "measured":
        choose_auto(model, feeds, progress=progress)
    elif config.kernels == "estimated":
        choose_portable(model, feeds)


def same_outputs(data: JobData | None, before: ir.Model, after: ir.Model) -> bool | None:
    """Whether two forms of a model give the same outputs, up to rounding; False if one does not run.

    None: it is not known, because the job runs no model and has no `data`.
    """
    if data is None:
        return None
    try:
        sessions = []
        for model in (before, after):
            with staging(None) as stage:
                stage.write(model.clone())
                sessions.append(make_session(stage.path, "the converted model"))
        some = data.test.take(slice(0, BATCH_SAMPLES))
        return compare(sessions[0], sessions[1], some).relative() <= ROUNDING
    except (ModelFileError, DataError):
        return False

"""Checks of what only the end of many jobs uses: test data and the target."""

from __future__ import annotations

from pathlib import Path

from onnxprune.config.settings import PruneConfig
from onnxprune.data.request import VALIDATION, Request
from onnxprune.data.specs import input_specs
from onnxprune.evaluation.batch_axes import find_axes
from onnxprune.evaluation.runs import patience
from onnxprune.evaluation.scores import Metrics
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.inputs import read_samples
from onnxprune.model.io import ModelLike, Source
from onnxprune.model.staging import staging
from onnxprune.sparse.opening import open_model


def check_early(source: ModelLike, target: Path | None, config: PruneConfig) -> Source:
    """Check --eval-data, --old-data and the target before any work; returns the origin of the input model.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it.
    """
    opened = open_model(source)
    origin = opened.origin
    session, specs = make_session(origin.file, origin.name), input_specs(opened.model)
    axes = find_axes(session, specs, config.batch_axes, config.input_shapes, patience(opened.model))
    request = Request(specs, config.transform, config.label_offset, VALIDATION, axes)
    for data in (config.eval_data, config.old_data):
        if data is not None:
            read_samples(data, session, request, Metrics.of(config, opened.model, config.loss))
    with staging(target, origin):
        return origin

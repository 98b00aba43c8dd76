"""Checks of what only the end of many jobs uses: test data, the target, and what will be quantized."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset
from onnxprune.data.request import VALIDATION, Request
from onnxprune.data.specs import input_specs
from onnxprune.errors import DataError, ModelFileError
from onnxprune.evaluation.batch_axes import find_axes
from onnxprune.evaluation.labels import label_forms
from onnxprune.evaluation.runs import patience
from onnxprune.evaluation.scores import Metrics
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.samples.inputs import read_samples
from onnxprune.job.store import stored_apart
from onnxprune.model.constants import constant_tensor
from onnxprune.model.files.io import ModelLike, Source
from onnxprune.model.files.staging import staging
from onnxprune.model.reading import FLOAT_TYPES
from onnxprune.model.weights import find_weights
from onnxprune.quantization.static import is_quantized
from onnxprune.sparse.opening import open_model

LOG = logging.getLogger("onnxprune")
# Fewer validation samples tell nothing: a network of constants may be right on all of them.
LEAST_VALIDATED = 20


def check_early(source: ModelLike, target: Path | None, config: PruneConfig) -> Source:
    """Check --eval-data, --old-data, --quantize and the target before any work; the origin of the input model.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it.
    """
    opened = open_model(source)
    origin = opened.origin
    if config.quantizes:
        check_quantizable(opened.model, origin.name)
    session, specs = make_session(origin.file, origin.name), input_specs(opened.model)
    axes = find_axes(session, specs, config.batch_axes, config.input_shapes, patience(opened.model))
    request = Request(specs, config.transform, config.label_offset, VALIDATION, axes)
    for data in (config.eval_data, config.old_data):
        if data is not None:
            read_samples(data, session, request, Metrics.of(config, opened.model, config.loss))
    with staging(target, origin, external=stored_apart(config, origin.external)):
        return origin


def check_quantizable(model: ir.Model, name: str) -> None:
    """Check before any work that integers can hold the constants of a model.

    Raises:
        ModelFileError: it is quantized already, not of float32, or has a bias that is not finite.
    """
    if is_quantized(model):
        raise ModelFileError(
            f"{name} is quantized already: prune it without --quantize, and its scales are kept"
        )
    weights = find_weights(model).prunable
    other = {weight.tensor.dtype for weight in weights} - {ir.DataType.FLOAT}
    if other:
        raise ModelFileError(
            f"{name} has weights of {min(each.name for each in other)}, and only those of float32 can be quantized: "
            "convert it to float32 first, or give --quantize none"
        )
    values = (value for weight in weights for use in weight.uses for value in use.node.inputs if value)
    for value in values:
        tensor = constant_tensor(value)
        if tensor is not None and tensor.dtype in FLOAT_TYPES and not np.isfinite(tensor.numpy()).all():
            raise ModelFileError(
                f"{value.name!r} of {name} holds a number that is not finite, for which there is no integer: replace "
                "it by a finite one (-1e4 instead of -inf), or give --quantize none"
            )


def check_measurable(data: Dataset, config: PruneConfig) -> None:
    """Check that a drop can be measured on the validation data of a search, and warn where it is measured coarsely.

    Raises:
        DataError: a model without weights could be right on so few samples.
    """
    count = len(data)
    more = "give more --data, a larger --validation-split, or --validation-data"
    if count < LEAST_VALIDATED:
        raise DataError(
            f"{data.name} has {count} samples, on which a search cannot tell a good model from a ruined one: {more} "
            f"(at least {LEAST_VALIDATED} samples, better thousands)"
        )
    counted = not config.metrics and any(form.classes > 1 for form in label_forms(data).values())
    if counted and config.max_drop is not None and 1 / count > config.max_drop:
        LOG.warning(
            f"One more wrong answer on {data.name} ({count} samples) is {1 / count:.2%}, above --max-drop: {more}."
        )

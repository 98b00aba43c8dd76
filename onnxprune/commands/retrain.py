"""`onnxprune.retrain`: fine-tune a pruned model on new data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.calibration.synthetic import NAME as SYNTHETIC
from onnxprune.commands.keywords import takes
from onnxprune.config.checks import batch_axes, input_shapes
from onnxprune.config.evaluation import EvaluationSettings
from onnxprune.config.pruning import BLOCKS
from onnxprune.config.settings import PruneConfig, RetrainSettings
from onnxprune.data.request import Request
from onnxprune.data.specs import input_specs
from onnxprune.errors import SettingError
from onnxprune.evaluation.batch_axes import find_axes
from onnxprune.evaluation.runs import patience
from onnxprune.evaluation.scores import Metrics
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.pipeline import run
from onnxprune.job.result import Context, Result
from onnxprune.job.samples.inputs import read_samples
from onnxprune.job.samples.losses import truths
from onnxprune.model.files.io import ModelLike
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.allocation import included
from onnxprune.reports.record import record_of_annotations, written_transform
from onnxprune.reports.tracking import title_of, tracked
from onnxprune.sparse.opening import open_model
from onnxprune.system.progress import StageProgress
from onnxprune.system.trust import trust

# Settings of the job that wrote the model, which the new file keeps, and how images become its inputs.
INHERITED = ("format", "values", "transform", "include", "batch_axis")


@takes(RetrainSettings)
def retrain(
    model: ModelLike,
    output: str | os.PathLike[str] | None = None,
    progress: StageProgress | None = None,
    **settings: Any,
) -> Result:
    """Fine-tune a pruned model that onnxprune wrote on new `data`; the output keeps its format.

    Zeros stay zero; with `regrow`, removed weights return if they grow large, and as many others of the layer are
    removed. The settings are the fields of `RetrainSettings`. Images become inputs as in the job that wrote the model,
    unless `transform` is given. With labels that a loss can be of, the default of `distill` is 0, because the outputs
    are meant to change.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it; nothing was written.
    """
    source = settings.get("data")
    if source is None:
        raise SettingError("retrain needs training data: give --data")
    regrow = settings.pop("regrow", False)
    unknown = sorted(settings.keys() - RetrainSettings.__dataclass_fields__.keys())
    if unknown:
        raise SettingError(f"{unknown[0]} is not a setting of retrain: use prune to prune further")
    trust(settings.get("allow_links", ()), settings.get("custom_ops", ()))
    opened = open_model(model)
    data = None
    if not (isinstance(source, str) and source == SYNTHETIC):
        # The labels decide the default of distill.
        transform = settings.get("transform") or written_transform(opened.model.metadata_props)
        scored = EvaluationSettings(
            metric=settings.get("metric", ()),
            postprocess=settings.get("postprocess"),
            label_output=settings.get("label_output"),
        )
        session, specs = make_session(opened.origin.file, opened.origin.name), input_specs(opened.model)
        shapes = input_shapes(settings.get("input_shape", ()))
        asked = batch_axes(settings.get("batch_axis") or _written(opened.model).get("batch_axis", ()))
        axes = find_axes(session, specs, asked, shapes, patience(opened.model))
        request = Request(specs, transform, settings.get("label_offset", 0), axes=axes)
        metrics = Metrics.of(scored, opened.model, settings.get("loss", "auto"))
        data = read_samples(source, session, request, metrics)
    trained = data is not None and bool(truths(data, settings.get("loss", "auto")))
    config = _config(opened.model, opened.origin.name, trained, regrow, settings)
    target = None if output is None else Path(output)
    with tracked(config, title_of(target), progress or (lambda stage, fraction: None)) as tracking:
        result = run(opened, target, config, tracking.progress, Context(data=data))
        tracking.finish(result.report)
    return result


def _config(model: ir.Model, name: str, trained: bool, regrow: bool, settings: dict[str, Any]) -> PruneConfig:
    """The settings of the job: no further pruning, and the format of the given file.

    `trained`: there are labels that a loss can be of.

    Raises:
        SettingError: the model has a pattern that cannot regrow.
    """
    written = _written(model)
    defaults: dict[str, Any] = {key: written[key] for key in INHERITED if key in written}
    if trained:
        defaults["distill"] = 0.0
    settings = defaults | settings
    if not regrow:
        return PruneConfig(**settings, rate=0.0, schedule="one-shot")
    pattern = written.get("pattern", "unstructured")
    if pattern == "2:4":
        raise SettingError(
            f"{name} has the 2:4 pattern (two of every four weights), which --regrow would break: remove --regrow"
        )
    weights = included(find_weights(model), settings.get("include", ())).prunable
    zeros = {weight.name: _zeros(weight) for weight in weights if weight.size}
    return PruneConfig(
        **settings,
        rate=0.0,
        layer_rate=zeros,
        pattern=pattern if pattern in BLOCKS else "unstructured",
        schedule="prune-and-regrow",
        pruning_end=0.0,
        regrow_zeros=True,
    )


def _zeros(weight: Weight) -> float:
    """The rate at which as many elements are removed as are zero; below 1 even where all are, as a rate must be."""
    return min(1 - weight.nonzero() / weight.size, 1 - 0.25 / weight.size)


def _written(model: ir.Model) -> dict[str, Any]:
    """The settings of the job that wrote a model; none where it was another program."""
    record = record_of_annotations(model.metadata_props)
    return {} if record is None else record["settings"]

"""What a user asks for: one job of the pipeline, a search for its rate, or more training of what it left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onnxprune.calibration.synthetic import NAME as SYNTHETIC
from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import input_specs
from onnxprune.data.sources import load_data, repeatable
from onnxprune.errors import SettingError
from onnxprune.job.pipeline import Progress, Result, run
from onnxprune.job.search import search
from onnxprune.model.io import ModelLike, load
from onnxprune.model.weights import Weight, find_weights
from onnxprune.report.record import record_of_annotations
from onnxprune.sparse.restore import from_ops

# What the model at hand decides when it is retrained, and what only finding a rate needs.
DECIDED = PruneConfig.under("What goes", "When it goes") | {"frontier"}


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


def retrain(
    model: ModelLike,
    output: str | os.PathLike | None = None,
    *,
    data: Any,
    splice: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Result:
    """Retrain a pruned model, of any format that is written here, on other data, in the form that it came in.

    What is zero stays zero; with `splice` connections come back where they grow, and as many others of the layer go.
    `settings`: the fields of `PruneConfig` but those that say what goes and when; where there are labels, `distill` is
    0 by default: what the model gave before is what is to change.

    Raises:
        OnnxPruneError: what is wrong, in a sentence that says the mend; nothing was written.
    """
    target = None if output is None else Path(output)
    config = retraining(model, splice, settings | {"data": data})
    return perform(model, target, config, progress or (lambda stage, fraction: None))


def retraining(model: ModelLike, splice: bool, settings: dict[str, Any]) -> PruneConfig:
    """The settings of a job that retrains a pruned model, see `retrain`.

    Raises:
        SettingError: there is no data, a setting that the model decides, or blocks that cannot be spliced.
    """
    if settings.get("data") is None:
        raise SettingError("retrain needs something to retrain on: give --data")
    decided = sorted(DECIDED & settings.keys())
    if decided:
        raise SettingError(f"{decided[0]} is no setting of retrain, which keeps what is pruned: use prune")
    graph, origin = load(model)
    from_ops(graph)
    record = record_of_annotations(graph.metadata_props)
    written: dict[str, Any] = {} if record is None else record["settings"]
    defaults: dict[str, Any] = {name: written[name] for name in ("format", "values") if name in written}
    settings = settings | {"data": repeatable(settings["data"])}
    if settings["data"] != SYNTHETIC and load_data(settings["data"], input_specs(graph)).labels is not None:
        defaults["distill"] = 0.0
    if not splice:
        return PruneConfig(**defaults | settings, rate=0.0, schedule="one-shot")
    pattern = written.get("pattern", "unstructured")
    if pattern == "2:4":
        raise SettingError(
            f"{origin.name} keeps two of every four neighbours, which --splice cannot: drop it"
        )
    return PruneConfig(
        **defaults | settings,
        rate=0.0,
        layer_rate=tuple(
            (weight.name, _zeros(weight)) for weight in find_weights(graph).prunable if weight.size
        ),
        pattern="4x1" if pattern == "4x1" else "unstructured",
        schedule="splice",
        approach=0.0,
        regrow=True,
    )


def perform(source: ModelLike, target: Path | None, config: PruneConfig, progress: Progress) -> Result:
    """The job, its settings checked; see `prune`."""
    return (search if config.searches else run)(source, target, config, progress)


def _zeros(weight: Weight) -> float:
    """The rate at which as many elements go as are zero: below 1, which is no rate, also where all are."""
    return min(1 - weight.nonzero() / weight.size, 1 - 0.25 / weight.size)

"""`onnxprune.report`: the HTML report of a job, rebuilt from the weights and the metadata of the file that it wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from onnxprune.commands.compare import compare
from onnxprune.config.declare import DataSource, Names
from onnxprune.config.presets import TargetSettings
from onnxprune.errors import ModelFileError, OutputError, SettingError
from onnxprune.job.sizes import travelling, with_sizes
from onnxprune.model.weights import Weight, find_weights
from onnxprune.reports.cost import check_price
from onnxprune.reports.energy import check_watts
from onnxprune.reports.graph import graph_view
from onnxprune.reports.latency import latency
from onnxprune.reports.maps import sparsity_maps
from onnxprune.reports.model_card import model_card as card_of
from onnxprune.reports.page import page
from onnxprune.reports.publishing import published
from onnxprune.reports.record import FileRecord, record_of_annotations, value_histogram, weight_histogram
from onnxprune.reports.side_by_side import side_by_side
from onnxprune.sparse.opening import open_model
from onnxprune.system.files import write_text
from onnxprune.system.trust import Paths, trust

PathLike = str | os.PathLike[str]

REBUILT = (
    "This report was rebuilt from the weights and the metadata of {}. Only the report that the job itself writes "
    "(--report) has {}the removed channels and times."
)
WITHOUT_BASELINE = (
    "the distribution of the weights of the baseline and latency (also with --baseline IN.onnx), "
)


def report(
    model: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    baseline: PathLike | None = None,
    eval_data: DataSource = None,
    metric: Names = (),
    postprocess: str | None = None,
    price: float | None = None,
    watts: float | None = None,
    model_card: PathLike | None = None,
    base_model: str | None = None,
    allow_links: Paths = (),
) -> None:
    """Write the HTML report of a model that onnxprune wrote, or of several side by side.

    `baseline`: the input model, for latency, the weights before, and with `eval_data` the evaluation of both, by the
    metrics of the job; those of a user are code, which is run only where `metric` and `postprocess` name it. `price`:
    of an hour of this machine, for the cost of a million inferences. `watts`: the power of one busy core, for the
    energy of an inference by its CPU time. `model_card`: a Markdown file for the Hub to write as well, in which
    `base_model` is the repository of the input model. `allow_links`: as in `prune`.

    Raises:
        ModelFileError: a file cannot be read, onnxprune did not write it, or the baseline is another one.
        DataError: the data does not fit the baseline.
        SettingError: settings contradict each other, or the price or the power is not positive.
        OutputError: the report cannot be written.
    """
    if not isinstance(model, str | os.PathLike | Sequence):
        raise SettingError(
            f"a report is of files that onnxprune wrote, and not of a {type(model).__name__}: give a path, or several"
        )
    models = [model] if isinstance(model, str | os.PathLike) else list(model)
    _check(models, baseline, eval_data, price, watts, model_card, base_model)
    trust(allow_links)
    scored = Scoring(eval_data, metric, postprocess)
    records = [
        _measured(rebuilt(each, baseline), each, baseline, scored) | {"price": price, "watts": watts}
        for each in models
    ]
    # The record of a file tells of the data of its job, and not of what is named here.
    named = [each for each in (baseline, eval_data) if isinstance(each, str | os.PathLike)]
    records = [published(record, *named) for record in records]
    _write(output, page(records[0]) if len(records) == 1 else side_by_side(records))
    if model_card is not None:
        _write(model_card, card_of(records[0], base_model))


def _check(
    models: Sequence[PathLike],
    baseline: PathLike | None,
    eval_data: DataSource,
    price: float | None,
    watts: float | None,
    model_card: PathLike | None,
    base_model: str | None,
) -> None:
    if not models:
        raise SettingError("there is no model: give a file that onnxprune wrote")
    for name, value in (("--eval-data", eval_data), ("--price", price), ("--watts", watts)):
        if value is not None and baseline is None:
            raise SettingError(f"{name} needs --baseline, the input model, to run both: give it as well")
    if model_card is not None and len(models) > 1:
        raise SettingError(f"--model-card is of one model, and {len(models)} are given: give one of them")
    if base_model is not None and model_card is None:
        raise SettingError("--base-model is for the model card: give --model-card CARD.md as well")
    check_price(price)
    check_watts(watts)


def _write(path: PathLike, content: str) -> None:
    try:
        write_text(path, content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; name another file") from error


class Scoring(NamedTuple):
    """The data to evaluate on, and how, as in `report`."""

    data: DataSource
    metric: Names
    postprocess: str | None

    def settings(self, used: Mapping[str, Any], source: PathLike) -> dict[str, Any]:
        """Those of `compare`, by the settings that the file says its job used.

        Raises:
            SettingError: the job used code of the user that is not named here, which a file cannot ask to run.
        """
        metric, postprocess = used.get("metric") or (), used.get("postprocess")
        code = next((name for name in metric if ":" in name), None)
        for flag, name, given in (
            ("--metric", code, self.metric),
            ("--postprocess", postprocess, self.postprocess),
        ):
            if name and not given:
                raise SettingError(
                    f"{source} was evaluated with {flag} {name}: give it here too, to run that code"
                )
        found = {"metric": self.metric or metric, "postprocess": self.postprocess}
        return found | {
            "label_output": used.get("label_output"),
            "label_offset": used.get("label_offset") or 0,
        }


def _measured(
    record: dict[str, Any], source: PathLike, baseline: PathLike | None, scored: Scoring
) -> dict[str, Any]:
    """The record with the latency of both models, and with their evaluation where there is data."""
    if baseline is None:
        return record
    record = record | {"latency": latency(Path(baseline), Path(source), record.get("sample") or {})}
    if scored.data is None:
        return record
    evaluation = compare(baseline, source, data=scored.data, **scored.settings(record["settings"], source))
    return record | {"evaluation": evaluation.to_dict(pictures=True)}


def pictures_of(source: PathLike, baseline: PathLike, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page draws of a file that onnxprune wrote: `sparsity_maps`, `graph_view`; `layers`: of its record."""
    found = find_weights(open_model(source).model)
    return {
        "maps": sparsity_maps([*found.prunable, *found.embeddings], layers),
        "graph": graph_view(Path(source), Path(baseline), layers),
    }


def rebuilt(source: PathLike, baseline: PathLike | None = None) -> dict[str, Any]:
    """The part of `Report.to_dict()` that can be read from a file that onnxprune wrote, and from the input model.

    Raises:
        ModelFileError: a file cannot be read, onnxprune did not write it, or the baseline is another one.
    """
    opened = open_model(source)
    model, origin = opened.model, opened.origin
    record = record_of_annotations(model.metadata_props)
    if record is None:
        raise ModelFileError(f"{source} has no metadata of onnxprune: give a file that onnxprune wrote")
    found = find_weights(model)
    before = {} if baseline is None else _weights_before(baseline, source, record)
    names = {layer["name"] for layer in record["layers"]}
    found = found.including([weight for weight in found.embeddings if weight.name in names])
    weights = {weight.name: weight for weight in found.prunable}
    kept = {name: weight.nonzero() for name, weight in weights.items()}
    sample = record.get("sample", {})
    counted = FileRecord.of(model, found.prunable, kept, Path(source), origin.file_bytes, sample)
    target = TargetSettings(target=record["settings"].get("target"))
    pruned = with_sizes(replace(counted, gzip_bytes=travelling(origin)), origin.file, target, sample)
    layers = [_completed(layer, weights.get(layer["name"])) for layer in record["layers"]]
    return record | {
        "pruned": asdict(pruned),
        "layers": layers,
        "maps": sparsity_maps(found.prunable, layers),
        "graph": graph_view(Path(source), None if baseline is None else Path(baseline), layers),
        "unprunable": [asdict(one) for one in found.left],
        "histograms": {name: _histogram(weight, before.get(name)) for name, weight in weights.items()},
        "output_sha256": origin.sha256,
        "notes": [*record.get("notes", ()), REBUILT.format(source, "" if before else WITHOUT_BASELINE)],
    }


def _weights_before(baseline: PathLike, source: PathLike, record: Mapping[str, Any]) -> dict[str, Weight]:
    """The weights of the input model, by name."""
    opened = open_model(baseline)
    if opened.origin.sha256 != record["source_sha256"]:
        raise ModelFileError(
            f"{baseline} is not the model that {source} was pruned from (their SHA-256 differ): give that file as "
            "--baseline"
        )
    found = find_weights(opened.model)
    return {weight.name: weight for weight in (*found.prunable, *found.embeddings)}


def _histogram(weight: Weight, before: Weight | None) -> dict[str, Any]:
    """Before and after where the shape is the same; else the values in the file alone."""
    if before is None or before.shape != weight.shape:
        return value_histogram(weight.numbers())
    return weight_histogram(before.numbers(), weight.numbers())


def _completed(layer: dict[str, Any], weight: Weight | None) -> dict[str, Any]:
    """The record of a layer, completed from its weight in the file."""
    if weight is None:
        return layer
    after = weight.shape
    own = {"op_type": weight.op_type, "nodes": weight.node_names, "shape_after": after}
    return layer | own | {"shape": tuple(layer.get("shape", after))}

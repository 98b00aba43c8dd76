"""`onnxprune.report`: the page of a job, rebuilt from the file that it wrote: its annotations and its weights."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxprune.errors import ModelFileError, OutputError
from onnxprune.model.weights import Weight, find_weights
from onnxprune.reports.page import page
from onnxprune.reports.record import FileRecord, record_of_annotations, value_histogram
from onnxprune.sparse.opening import open_model

LACKING = (
    "Rebuilt from {}: its weights as they are, the rest from its annotations. The distribution of the weights before "
    "pruning, what was removed with dead channels, latencies and times are in the page that the job itself wrote "
    "(--report)."
)


def report(model: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Write the HTML page of a model that onnxprune wrote, from its weights and its annotations.

    Raises:
        ModelFileError: the file cannot be read, or has no annotations.
        OutputError: the page cannot be written.
    """
    content = page(rebuilt(model))
    try:
        Path(output).write_text(content)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}; name another file") from error


def rebuilt(source: str | os.PathLike[str]) -> dict[str, Any]:
    """As much of `Report.to_dict()` as a file that onnxprune wrote still tells.

    Raises:
        ModelFileError: the file cannot be read, or has no annotations.
    """
    opened = open_model(source)
    model, origin = opened.model, opened.origin
    record = record_of_annotations(model.metadata_props)
    if record is None:
        raise ModelFileError(f"{source} has no annotations of onnxprune: give a file that it wrote")
    found = find_weights(model)
    weights = {weight.name: weight for weight in found.prunable}
    kept = {name: weight.nonzero() for name, weight in weights.items()}
    sample = record.get("sample", {})
    pruned = FileRecord.of(model, found.prunable, kept, Path(source), origin.file_bytes, sample)
    return record | {
        "pruned": asdict(pruned),
        "layers": [_told(layer, weights.get(layer["name"])) for layer in record["layers"]],
        "unprunable": [asdict(one) for one in found.unprunable],
        "histograms": {name: value_histogram(weight.numbers()) for name, weight in weights.items()},
        "output_sha256": origin.sha256,
        "notes": [*record.get("notes", ()), LACKING.format(source)],
    }


def _told(layer: dict[str, Any], weight: Weight | None) -> dict[str, Any]:
    """A layer with what its weight in the file adds."""
    if weight is None:
        return layer
    after = weight.shape
    own = {"op_type": weight.op_type, "nodes": weight.node_names, "shape_after": after}
    return layer | own | {"shape": tuple(layer.get("shape", after))}

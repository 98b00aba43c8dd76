"""The record of a job once more, from the file that it wrote: its annotations, and what its weights tell."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxprune.errors import ModelFileError
from onnxprune.model.io import load
from onnxprune.model.weights import Weight, find_weights
from onnxprune.report.record import FileRecord, record_of_annotations, value_histogram
from onnxprune.sparse.restore import from_ops

LACKING = (
    "Rebuilt from {}: its weights as they are, the rest from its annotations. How the weights were spread before, "
    "what was removed with dead channels, latencies and times are in the page that the job itself wrote (--report)."
)


def rebuilt(source: str) -> dict[str, Any]:
    """As much of `Report.to_dict()` as a file that onnxprune wrote still tells.

    Raises:
        ModelFileError: the file cannot be read, or has no annotations.
    """
    model, origin = load(source)
    record = record_of_annotations(model.metadata_props)
    if record is None:
        raise ModelFileError(f"{source} has no annotations of onnxprune: give a file that it wrote")
    from_ops(model)
    found = find_weights(model)
    weights = {weight.name: weight for weight in found.prunable}
    kept = {name: weight.nonzero() for name, weight in weights.items()}
    sample = record.get("sample", {})
    after = FileRecord.of(model, found.prunable, kept, Path(source), origin.file_bytes, sample)
    return record | {
        "after": asdict(after),
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

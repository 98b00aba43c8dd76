"""`onnxprune.report`: the HTML report of a job, rebuilt from the weights and the metadata of the file that it wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from onnxprune.config.presets import TargetSettings
from onnxprune.errors import ModelFileError, OutputError
from onnxprune.job.sizes import travelling, with_sizes
from onnxprune.model.weights import Weight, find_weights
from onnxprune.reports.maps import sparsity_maps
from onnxprune.reports.page import page
from onnxprune.reports.record import FileRecord, record_of_annotations, value_histogram
from onnxprune.sparse.opening import open_model
from onnxprune.system.files import write_text
from onnxprune.system.trust import Paths, trust

REBUILT = (
    "This report was rebuilt from the weights and the metadata of {}. Only the report that the job itself writes "
    "(--report) has the distribution of the weights of the baseline, the removed channels, latency and times."
)


def report(model: str | os.PathLike[str], output: str | os.PathLike[str], *, allow_links: Paths = ()) -> None:
    """Write the HTML report of a model that onnxprune wrote, from its weights and its metadata.

    `allow_links`: as in `prune`.

    Raises:
        ModelFileError: the file cannot be read, or onnxprune did not write it.
        OutputError: the report cannot be written.
    """
    trust(allow_links)
    content = page(rebuilt(model))
    try:
        write_text(output, content)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}; name another file") from error


def maps_of(source: str | os.PathLike[str], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`sparsity_maps` of a file that onnxprune wrote; `layers`: of its record."""
    found = find_weights(open_model(source).model)
    return sparsity_maps([*found.prunable, *found.embeddings], layers)


def rebuilt(source: str | os.PathLike[str]) -> dict[str, Any]:
    """The part of `Report.to_dict()` that can be read from a file that onnxprune wrote.

    Raises:
        ModelFileError: the file cannot be read, or onnxprune did not write it.
    """
    opened = open_model(source)
    model, origin = opened.model, opened.origin
    record = record_of_annotations(model.metadata_props)
    if record is None:
        raise ModelFileError(f"{source} has no metadata of onnxprune: give a file that onnxprune wrote")
    found = find_weights(model)
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
        "unprunable": [asdict(one) for one in found.left],
        "histograms": {name: value_histogram(weight.numbers()) for name, weight in weights.items()},
        "output_sha256": origin.sha256,
        "notes": [*record.get("notes", ()), REBUILT.format(source)],
    }


def _completed(layer: dict[str, Any], weight: Weight | None) -> dict[str, Any]:
    """The record of a layer, completed from its weight in the file."""
    if weight is None:
        return layer
    after = weight.shape
    own = {"op_type": weight.op_type, "nodes": weight.node_names, "shape_after": after}
    return layer | own | {"shape": tuple(layer.get("shape", after))}

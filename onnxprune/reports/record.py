"""The record of a job: every figure that the tables, the JSON file and the annotations show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, constants
from onnxprune.model.costs import multiply_adds, weight_multiply_adds
from onnxprune.model.reading import FLOAT_TYPES
from onnxprune.model.weights import Unprunable, Weight

ANNOTATION_PREFIX = "onnxprune."
BEFORE, PRUNED, CHANGED = "before pruning", "after pruning", "after fine-tuning"
BINS = 60
SAMPLED = 1 << 18
# Of the weights; the few that are larger, which would make the bins too wide, go to the last.
SHOWN = 0.999
# More lines in one chart are not told apart.
DRAWN_CURVES = 12
# JSON without spaces, and the most that a file keeps of a training, so that its annotations stay small.
COMPACT = (",", ":")
ANNOTATED_EPOCHS = 16


@dataclass(frozen=True)
class LayerRecord:
    """One weight before and after; sizes count elements, bytes are those of the stored tensor.

    `kept` and `values` are the file's: `kept` without what rounding took to zero, `values` the stored type (fp16,
    int8) where it is not the weight's own.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    shape: tuple[int, ...]
    shape_after: tuple[int, ...]
    size: int
    kept: int
    bytes: int
    bytes_after: int
    format: str
    note: str = ""
    values: str = ""

    @classmethod
    def of(cls, weight: Weight, note: str = "") -> LayerRecord:
        """A weight as it came."""
        shape, size, nbytes = weight.shape, weight.size, weight.tensor.nbytes
        kept, names = weight.nonzero(), weight.node_names
        return cls(
            weight.name, weight.op_type, names, shape, shape, size, kept, nbytes, nbytes, "dense", note
        )

    def pruned(self, weight: Weight) -> LayerRecord:
        """The record with the weight as it is by now."""
        nbytes = weight.tensor.nbytes
        return replace(self, shape_after=weight.shape, kept=weight.nonzero(), bytes_after=nbytes)

    @property
    def rate(self) -> float:
        """Fraction removed of the weight as it came."""
        return 1 - self.kept / self.size if self.size else 0.0

    def annotation(self) -> dict[str, Any]:
        """What a file does not tell of its weight."""
        told: dict[str, Any] = {"kept": self.kept, "all": self.size, "bytes": self.bytes_after}
        shape = () if self.shape == self.shape_after else self.shape
        rest = {"shape": shape, "format": self.format, "values": self.values, "note": self.note}
        return told | {key: value for key, value in rest.items() if value}


@dataclass(frozen=True)
class FileRecord:
    """A model file: parameters are elements of all float constants and of quantized weights.

    `nonzero` are those that are not zero.
    `multiply_adds` are those of one sample with every weight counted, zero or not; `nonzero_multiply_adds` those
    without the weights that are zero.
    """

    path: str | None
    bytes: int
    parameters: int
    nonzero: int
    multiply_adds: int
    nonzero_multiply_adds: int

    @classmethod
    def of(
        cls,
        model: ir.Model,
        weights: Sequence[Weight],
        kept: Mapping[str, int],
        path: Path | None,
        file_bytes: int,
        sample: Mapping[str, Sequence[int]],
    ) -> FileRecord:
        """A model counted, its multiply-adds for inputs of the shapes of `sample`.

        `kept`: the elements of each weight that are not zero, by its name.
        """
        parameters = sum(weight.size for weight in weights)
        nonzero = sum(kept[weight.name] for weight in weights)
        counted = {weight.value for weight in weights}
        for value in constants(model):
            tensor = constant_tensor(value)
            if value not in counted and tensor is not None and tensor.dtype in FLOAT_TYPES:
                parameters += tensor.size
                nonzero += int(np.count_nonzero(tensor.numpy()))
        costs = multiply_adds(model, sample)
        by_zero = sum(
            cost * (weight.size - kept[weight.name]) // max(weight.size, 1)
            for weight, cost in zip(weights, weight_multiply_adds(weights, costs).values(), strict=True)
        )
        operations = sum(costs.values())
        name = None if path is None else str(path)
        return cls(name, file_bytes, parameters, nonzero, operations, operations - by_zero)


@dataclass(frozen=True)
class Report:
    """Everything a job did; `to_dict` gives what `--json` writes.

    `evaluation` is what `Evaluation.to_dict()` gives, `old_evaluation` the same on --old-data; `surgery` what
    died, `fine_tuning` a record an epoch, `notes` sentences that the reader should see, `seconds` the wall time of each
    stage, `histograms` what `weight_histogram` gives, by weight; `trials` those of a search for the rate
    (`job.frontier.Trial`), each with whether it was `chosen`. `sensitivity`: (rate, deviation) of each weight
    pruned alone, where the rate was shared out by that; `sample`: the shapes of one sample's inputs; `output_sha256`:
    empty where no file was written.
    """

    versions: dict[str, str]
    settings: dict[str, Any]
    source_sha256: str
    baseline: FileRecord
    pruned: FileRecord
    layers: tuple[LayerRecord, ...]
    unprunable: tuple[Unprunable, ...]
    surgery: dict[str, Any]
    evaluation: dict[str, Any]
    fine_tuning: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]
    histograms: dict[str, dict[str, Any]] = field(default_factory=dict)
    old_evaluation: dict[str, Any] | None = None
    trials: tuple[dict[str, Any], ...] = ()
    sensitivity: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    sample: dict[str, tuple[int, ...]] = field(default_factory=dict)
    output_sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record in JSON types, each layer with its rate."""
        layers = [asdict(layer) | {"rate": layer.rate} for layer in self.layers]
        return asdict(self) | {"layers": layers}

    def annotations(self) -> dict[str, str]:
        """Model metadata that explains the file later: what it does not tell itself, in a few kB, and how to run again.

        Without times, so that a job that is repeated gives the same file.
        """
        found = {name: getattr(self, name) for name in ANNOTATED} | {
            "layers": {layer.name: layer.annotation() for layer in self.layers},
            "baseline": asdict(self.baseline),
            "fine_tuning": _thinned(self.fine_tuning),
            "sensitivity": _steepest(self.sensitivity),
        }
        plain = {"version": self.versions["onnxprune"], "source_sha256": self.source_sha256}
        texts = plain | {key: json.dumps(value, separators=COMPACT) for key, value in found.items() if value}
        return {f"{ANNOTATION_PREFIX}{key}": text for key, text in texts.items()}


ANNOTATED = (
    "settings", "layers", "evaluation", "old_evaluation", "baseline", "versions", "sample", "trials", "notes",
    "fine_tuning", "sensitivity",
)  # fmt: skip
"""Of a report's fields, those that a file keeps as JSON, under their own names."""


def _thinned(epochs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Some of the epochs, the last among them, of each what is drawn."""
    every = -(-len(epochs) // ANNOTATED_EPOCHS)
    some = epochs[::-1][::every][::-1] if epochs else ()
    drawn = ("epoch", "training_loss", "loss", "accuracy")
    return [{key: _short(epoch[key]) for key in drawn} for epoch in some]


def _steepest(curves: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """The curves that rise highest, which are those that are drawn."""
    names = sorted(curves, key=lambda name: -max(deviation for _, deviation in curves[name]))[:DRAWN_CURVES]
    return {name: [(rate, _short(deviation)) for rate, deviation in curves[name]] for name in names}


def _short(number: Any) -> Any:
    return float(f"{number:.4g}") if isinstance(number, float) else number


def weight_histogram(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """How the values that are not zero are spread: `edges` of the bins, `counts` in them by name.

    Before pruning; after pruning, which are those that stay, with the values that they had; and as they are in the end,
    where retraining or calibration changed them. Both arrays have one shape. Of a large one, evenly spaced elements
    stand for all: a job must not take longer, or more memory, for a picture.
    """
    before, after = (array.reshape(-1)[:: max(1, array.size // SAMPLED)] for array in (before, after))
    stayed = after != 0
    parts = {BEFORE: before[before != 0], PRUNED: before[stayed]}
    if not np.array_equal(before[stayed], after[stayed]):
        parts[CHANGED] = after[stayed]
    return _binned(parts)


def value_histogram(weight: np.ndarray) -> dict[str, Any]:
    """As `weight_histogram`, of a weight of which only the end is known."""
    some = weight.reshape(-1)[:: max(1, weight.size // SAMPLED)]
    return _binned({CHANGED: some[some != 0]})


def _binned(parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    widest = max(
        (float(np.quantile(np.abs(part), SHOWN)) for part in parts.values() if part.size), default=1.0
    )
    edges = np.linspace(-widest, widest, BINS + 1)
    counts = {
        name: np.histogram(part.clip(-widest, widest), edges)[0].tolist() for name, part in parts.items()
    }
    return {"edges": edges.tolist(), "counts": counts}


def record_of_annotations(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """As much of a record as a model's metadata tells; None where it tells of no job."""
    found = {
        key.removeprefix(ANNOTATION_PREFIX): text
        for key, text in metadata.items()
        if key.startswith(ANNOTATION_PREFIX)
    }
    if not {"settings", "layers", "evaluation"} <= found.keys():
        return None
    record = {key: json.loads(found[key]) for key in ANNOTATED if key in found}
    layers = [
        {"name": name, "size": told["all"]}
        | ({"bytes_after": told["bytes"]} if "bytes" in told else {})
        | told
        for name, told in record["layers"].items()
    ]
    return record | {
        "versions": record.get("versions") or {"onnxprune": found.get("version", "")},
        "source_sha256": found.get("source_sha256", ""),
        "layers": layers,
    }

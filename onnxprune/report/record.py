"""The record of a job: every figure that the tables, the JSON file and the annotations show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from onnxprune.model.weights import Unprunable, Weight

ANNOTATION_PREFIX = "onnxprune."
BEFORE, PRUNED, CHANGED = "before pruning", "after pruning", "in the end"
BINS = 60
SAMPLED = 1 << 18
# Of the weights; the few that are larger, which would make the bins too wide, go to the last.
SHOWN = 0.999


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


@dataclass(frozen=True)
class FileRecord:
    """A model file: parameters are elements of all float constants, `nonzero` those that are not zero.

    `multiply_adds` are those of one sample with every weight counted, zero or not; `nonzero_multiply_adds` those
    without the weights that are zero.
    """

    path: str | None
    bytes: int
    parameters: int
    nonzero: int
    multiply_adds: int
    nonzero_multiply_adds: int


@dataclass(frozen=True)
class Report:
    """Everything a job did; `to_dict` gives what `--json` writes.

    `evaluation` is `onnxprune.evaluate.Evaluation.to_dict()`, `old_evaluation` the same on --old-data; `surgery` what
    died, `retraining` a record an epoch, `notes` sentences that the reader should see, `seconds` the wall time of each
    stage, `histograms` what `weight_histogram` gives, by weight; `trials` those of a search for the rate
    (`onnxprune.frontier.Trial`), each with whether it was `chosen`. `sensitivity`: (rate, deviation) of each weight
    pruned alone, where the rate was shared out by that; `sample`: the shapes of one sample's inputs; `output_sha256`:
    empty where no file was written.
    """

    versions: dict[str, str]
    settings: dict[str, Any]
    source_sha256: str
    before: FileRecord
    after: FileRecord
    layers: tuple[LayerRecord, ...]
    unprunable: tuple[Unprunable, ...]
    surgery: dict[str, Any]
    evaluation: dict[str, Any]
    retraining: tuple[dict[str, Any], ...]
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
        """Model metadata that explains the file later: enough to see what was kept, and to run again."""
        densities = {layer.name: {"kept": layer.kept, "all": layer.size} for layer in self.layers}
        found = {
            f"{ANNOTATION_PREFIX}version": self.versions["onnxprune"],
            f"{ANNOTATION_PREFIX}source_sha256": self.source_sha256,
            f"{ANNOTATION_PREFIX}settings": json.dumps(self.settings),
            f"{ANNOTATION_PREFIX}layers": json.dumps(densities),
            f"{ANNOTATION_PREFIX}evaluation": json.dumps(self.evaluation),
        }
        return found | ({f"{ANNOTATION_PREFIX}trials": json.dumps(self.trials)} if self.trials else {})


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
    widest = max(
        (float(np.quantile(np.abs(part), SHOWN)) for part in parts.values() if part.size), default=1.0
    )
    edges = np.linspace(-widest, widest, BINS + 1)
    counts = {
        name: np.histogram(part.clip(-widest, widest), edges)[0].tolist() for name, part in parts.items()
    }
    return {"edges": edges.tolist(), "counts": counts}


def record_of_annotations(metadata: Mapping[str, str], path: str) -> dict[str, Any] | None:
    """As much of a record as a model's metadata tells; None where it tells of no job."""
    found = {
        key.removeprefix(ANNOTATION_PREFIX): text
        for key, text in metadata.items()
        if key.startswith(ANNOTATION_PREFIX)
    }
    if not {"settings", "layers", "evaluation"} <= found.keys():
        return None
    layers = [
        {"name": name, "kept": counts["kept"], "size": counts["all"]}
        for name, counts in json.loads(found["layers"]).items()
    ]
    return {
        "versions": {"onnxprune": found.get("version", "")},
        "settings": json.loads(found["settings"]),
        "source_sha256": found.get("source_sha256", ""),
        "layers": layers,
        "evaluation": json.loads(found["evaluation"]),
        "trials": json.loads(found.get("trials", "[]")),
        "notes": [f"Rebuilt from the annotations in {path}, which hold no more than this."],
    }

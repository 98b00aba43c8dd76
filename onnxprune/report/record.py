"""The record of a job: every figure that the tables, the JSON file and the annotations show."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from onnxprune.model.weights import Unprunable, Weight

ANNOTATION_PREFIX = "onnxprune."


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
    def of(cls, weight: Weight) -> LayerRecord:
        """A weight as it came."""
        shape, size, nbytes = weight.shape, weight.size, weight.tensor.nbytes
        kept, names = weight.nonzero(), weight.node_names
        return cls(weight.name, weight.op_type, names, shape, shape, size, kept, nbytes, nbytes, "dense")

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

    `multiply_adds` are those of one sample with every weight counted, zero or not.
    """

    path: str | None
    bytes: int
    parameters: int
    nonzero: int
    multiply_adds: int


@dataclass(frozen=True)
class Report:
    """Everything a job did; `to_dict` gives what `--json` writes.

    `evaluation` is `onnxprune.evaluate.Evaluation.to_dict()`, `surgery` what died, `retraining` a record an epoch,
    `notes` sentences that the reader should see, `seconds` the wall time of each stage.
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

    def to_dict(self) -> dict[str, Any]:
        """The record in JSON types, each layer with its rate."""
        layers = [asdict(layer) | {"rate": layer.rate} for layer in self.layers]
        return asdict(self) | {"layers": layers}

    def annotations(self) -> dict[str, str]:
        """Model metadata that explains the file later: enough to see what was kept, and to run again."""
        densities = {layer.name: {"kept": layer.kept, "all": layer.size} for layer in self.layers}
        return {
            f"{ANNOTATION_PREFIX}version": self.versions["onnxprune"],
            f"{ANNOTATION_PREFIX}source_sha256": self.source_sha256,
            f"{ANNOTATION_PREFIX}settings": json.dumps(self.settings),
            f"{ANNOTATION_PREFIX}layers": json.dumps(densities),
            f"{ANNOTATION_PREFIX}evaluation": json.dumps(self.evaluation),
        }

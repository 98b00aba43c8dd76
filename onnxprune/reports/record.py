"""The record of a job: the data behind the tables, the JSON file, the HTML report and the metadata of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.model.constants import constant_tensor, constants
from onnxprune.model.costs import products, weight_multiply_adds
from onnxprune.model.reading import FLOAT_TYPES
from onnxprune.model.weights import Unprunable, Weight
from onnxprune.reports.publishing import published

ANNOTATION_PREFIX = "onnxprune."
# The names of the histograms of a weight.
BASELINE, REMAINING, FINE_TUNED = "baseline", "remaining", "fine-tuned"
BINS = 60
SAMPLED = 1 << 18
# The quantile of |w| at the ends of a histogram; larger weights would make the bins too wide, and are in the last.
SHOWN = 0.999
# More lines in one chart are hard to distinguish.
DRAWN_CURVES = 12
# JSON without spaces, and few epochs, keep the metadata of a file small.
COMPACT = (",", ":")
ANNOTATED_EPOCHS = 16
ANNOTATED_CLASSES = 100


class Detail(str):
    """A note about how a job was done, for --verbose and the report: nothing that its user has to act on."""


@dataclass(frozen=True)
class LayerRecord:
    """One weight; `size` and `kept` count elements, `bytes` are those of the stored tensor.

    `shape`, `size` and `bytes` are of the baseline, the other fields of the pruned file: `shape_after`, `bytes_after`,
    `kept` (elements that are not zero), `format`, `values` (the stored type, fp16 or int8, if it is not the weight's
    own), and `note` (why the weight is excluded or stored dense).
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
        """The record of a weight of the input model."""
        shape, size, nbytes = weight.shape, weight.size, weight.tensor.nbytes
        kept, names = weight.nonzero(), weight.node_names
        return cls(
            weight.name, weight.op_type, names, shape, shape, size, kept, nbytes, nbytes, "dense", note
        )

    def pruned(self, weight: Weight) -> LayerRecord:
        """The record, updated with the current state of the weight."""
        nbytes = weight.tensor.nbytes
        return replace(self, shape_after=weight.shape, kept=weight.nonzero(), bytes_after=nbytes)

    @property
    def rate(self) -> float:
        """Fraction of the elements of the input model that are removed."""
        return 1 - self.kept / self.size if self.size else 0.0

    def annotation(self) -> dict[str, Any]:
        """The part of the record that cannot be read from the weight in the file."""
        always: dict[str, Any] = {"kept": self.kept, "size": self.size, "bytes_after": self.bytes_after}
        shape = () if self.shape == self.shape_after else self.shape
        optional = {"shape": shape, "format": self.format, "values": self.values, "note": self.note}
        return always | {key: value for key, value in optional.items() if value}


@dataclass(frozen=True)
class FileRecord:
    """A model file.

    `parameters`: elements of all float constants and quantized weights; `nonzero`: those that are not zero.
    `multiply_adds`: of one sample, with all weights; `nonzero_multiply_adds`: without the weights that are zero.
    `gzip_bytes`: compressed, as it travels; None for large files. With --for mcu, `constant_bytes` (flash) and
    `peak_bytes` (activations of one run at once).
    """

    path: str | None
    bytes: int
    parameters: int
    nonzero: int
    multiply_adds: int
    nonzero_multiply_adds: int
    gzip_bytes: int | None = None
    constant_bytes: int | None = None
    peak_bytes: int | None = None

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
        """The record of a model, with multiply-adds for inputs of the shapes of `sample`.

        `kept`: the number of non-zero elements of each weight, by its name.
        """
        parameters = sum(weight.size for weight in weights)
        nonzero = sum(kept[weight.name] for weight in weights)
        counted = {weight.value for weight in weights}
        for value in constants(model):
            tensor = constant_tensor(value)
            if value not in counted and tensor is not None and tensor.dtype in FLOAT_TYPES:
                parameters += tensor.size
                nonzero += int(np.count_nonzero(tensor.numpy()))
        found = products(model, sample)
        by_zero = sum(
            cost * (weight.size - kept[weight.name]) // max(weight.size, 1)
            for weight, cost in zip(weights, weight_multiply_adds(weights, found).values(), strict=True)
        )
        operations = sum(product.runs for counted in found.values() for product in counted)
        name = None if path is None else str(path)
        return cls(name, file_bytes, parameters, nonzero, operations, operations - by_zero)


@dataclass(frozen=True)
class Report:
    """The full record of a job; `--json` writes `to_dict()`.

    `baseline` and `pruned`: the two files. `evaluation`: `Evaluation.to_dict()`, None with --no-evaluate;
    `old_evaluation`: the same on --old-data. `surgery`: the `SurgeryReport`. `fine_tuning`: one record per evaluation
    on validation data. `notes`: sentences for the reader, some of them a `Detail`. `seconds`: wall time of each stage.
    `histograms`: `weight_histogram` of each weight, by name. `trials`: those of a search (`job.frontier.Trial`), with
    `chosen`. `sensitivity`: (rate, deviation) of each weight, if the allocation is by sensitivity. `sample`: shapes of
    the inputs of one sample. `output_sha256`: empty if no file was written.
    """

    versions: dict[str, str]
    settings: dict[str, Any]
    source_sha256: str
    baseline: FileRecord
    pruned: FileRecord
    layers: tuple[LayerRecord, ...]
    unprunable: tuple[Unprunable, ...]
    surgery: dict[str, Any]
    evaluation: dict[str, Any] | None
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
        """The record in JSON types; each layer also has its rate, and `details` are apart from the notes."""
        layers = [asdict(layer) | {"rate": layer.rate} for layer in self.layers]
        return asdict(self) | {"layers": layers, **self._told()}

    def _told(self) -> dict[str, tuple[str, ...]]:
        details = tuple(str(note) for note in self.notes if isinstance(note, Detail))
        return {
            "notes": tuple(note for note in self.notes if not isinstance(note, Detail)),
            "details": details,
        }

    def annotations(self) -> dict[str, str]:
        """Metadata for the file: the part of the record that cannot be read from the model, and settings but defaults.

        It has no times, so that a repeated job writes the same file, and no folders, as it is published.
        """
        usual = _defaults()
        evaluations = {name: annotated(getattr(self, name)) for name in ("evaluation", "old_evaluation")}
        found = (
            {name: getattr(self, name) for name in ANNOTATED if hasattr(self, name)}
            | self._told()
            | evaluations
            | {
                "settings": {
                    name: value for name, value in self.settings.items() if value != usual.get(name, MISSING)
                },
                "layers": {layer.name: layer.annotation() for layer in self.layers},
                "baseline": asdict(self.baseline),
                "fine_tuning": _thinned(self.fine_tuning),
                "sensitivity": _steepest(self.sensitivity),
            }
        )
        found = published(found, self.pruned.path)
        plain = {"version": self.versions["onnxprune"], "source_sha256": self.source_sha256}
        texts = plain | {key: json.dumps(value, separators=COMPACT) for key, value in found.items() if value}
        return {f"{ANNOTATION_PREFIX}{key}": text for key, text in texts.items()}


ANNOTATED = (
    "settings", "layers", "evaluation", "old_evaluation", "baseline", "versions", "sample", "trials", "notes",
    "details", "fine_tuning", "sensitivity",
)  # fmt: skip
"""The fields of a report that are stored in the file's metadata, as JSON under their own names."""


def restated(metadata: Mapping[str, str], stored: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The annotations in a model's metadata for the same weights in another form: `stored` has what is new of each."""
    texts = {key: text for key, text in metadata.items() if key.startswith(ANNOTATION_PREFIX)}
    record = record_of_annotations(metadata)
    if record is None:
        return texts
    forms = ("format", "values")
    layers = {
        layer["name"]: {key: value for key, value in layer.items() if key not in ("name", *forms)}
        | dict(stored.get(layer["name"], {}))
        for layer in record["layers"]
    }
    formats = {each["format"] for each in stored.values()} - {"dense"}
    settings = record["settings"] | {"format": min(formats, default="dense"), "values": "fp32"}
    # The file may be of a version that wrote paths.
    changed = published(record | {"layers": layers, "settings": settings})
    return texts | {
        f"{ANNOTATION_PREFIX}{key}": json.dumps(changed[key], separators=COMPACT)
        for key in ANNOTATED
        if f"{ANNOTATION_PREFIX}{key}" in texts
    }


def annotated(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An evaluation without samples of the data, and with the counts of few classes only."""
    answers = (evaluation or {}).get("answers")
    if evaluation is None or not answers:
        return None if evaluation is None else dict(evaluation)
    classes = answers["classes"] if len(answers["classes"]) <= ANNOTATED_CLASSES else []
    return {**evaluation, "answers": {**answers, "classes": classes, "shown": []}}


def _thinned(epochs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Evenly spaced epochs, with the last one, and of each the values that the chart shows."""
    every = -(-len(epochs) // ANNOTATED_EPOCHS)
    some = epochs[::-1][::every][::-1] if epochs else ()
    drawn = ("epoch", "training_loss", "loss", "score", "rate")
    return [{key: _short(epoch.get(key)) for key in drawn} | {"metric": epoch["metric"]} for epoch in some]


def _steepest(curves: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """The curves with the largest deviations, which the chart shows."""
    names = sorted(curves, key=lambda name: -max(deviation for _, deviation in curves[name]))[:DRAWN_CURVES]
    return {name: [(rate, _short(deviation)) for rate, deviation in curves[name]] for name in names}


def _short(number: Any) -> Any:
    return float(f"{number:.4g}") if isinstance(number, float) else number


def weight_histogram(baseline: np.ndarray, pruned: np.ndarray) -> dict[str, Any]:
    """Histograms of the non-zero values: `edges` of the bins, `counts` by name.

    The names are `BASELINE`; `REMAINING`, the weights that are kept, with their values in the baseline; and, if
    fine-tuning or calibration changed them, `FINE_TUNED`. Both arrays have one shape. Large ones are subsampled, to
    save time and memory.
    """
    baseline, pruned = (array.reshape(-1)[:: max(1, array.size // SAMPLED)] for array in (baseline, pruned))
    kept = pruned != 0
    parts = {BASELINE: baseline[baseline != 0], REMAINING: baseline[kept]}
    if not np.array_equal(baseline[kept], pruned[kept]):
        parts[FINE_TUNED] = pruned[kept]
    return _binned(parts)


def value_histogram(weight: np.ndarray) -> dict[str, Any]:
    """Like `weight_histogram`, for a weight of which only the final values are known."""
    some = weight.reshape(-1)[:: max(1, weight.size // SAMPLED)]
    return _binned({FINE_TUNED: some[some != 0]})


def _binned(parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    widest = max(
        (float(np.quantile(np.abs(part), SHOWN)) for part in parts.values() if part.size), default=1.0
    )
    edges = np.linspace(-widest, widest, BINS + 1)
    counts = {
        name: np.histogram(part.clip(-widest, widest), edges)[0].tolist() for name, part in parts.items()
    }
    return {"edges": edges.tolist(), "counts": counts}


def written_transform(metadata: Mapping[str, str]) -> str | None:
    """How images became inputs in the job that wrote a model with this metadata; None if it had no images."""
    record = record_of_annotations(metadata)
    return None if record is None else record["settings"].get("transform")


def _defaults() -> dict[str, Any]:
    """The settings at their defaults, in JSON types."""
    defaults = {setting.name: setting.default for setting in fields(PruneConfig)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


def record_of_annotations(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The part of a record that is in a model's metadata; None if there is none, or none that can be read."""
    found = {
        key.removeprefix(ANNOTATION_PREFIX): text
        for key, text in metadata.items()
        if key.startswith(ANNOTATION_PREFIX)
    }
    if not {"settings", "layers"} <= found.keys():
        return None
    record: dict[str, Any] = {"evaluation": None}
    try:
        record |= {key: json.loads(found[key]) for key in ANNOTATED if key in found}
        layers = [{"name": name} | layer for name, layer in record["layers"].items()]
    # Not JSON, or none of ours: anything may have written the file since.
    except (ValueError, AttributeError, TypeError):
        return None
    if not isinstance(record["settings"], dict):
        return None
    return record | {
        "settings": _defaults() | record["settings"],
        "versions": record.get("versions") or {"onnxprune": found.get("version", "")},
        "source_sha256": found.get("source_sha256", ""),
        "layers": layers,
    }

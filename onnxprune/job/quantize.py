"""The stage of a job that quantizes the pruned model, in the way that keeps its outputs best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.config.declare import AUTO
from onnxprune.config.settings import PruneConfig
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.errors import ModelFileError, NothingToPruneError
from onnxprune.evaluation.runs import run_batch
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.inputs import JobData
from onnxprune.job.kernels import same_outputs
from onnxprune.model.shapes import infer_shapes
from onnxprune.model.staging import staging
from onnxprune.model.weights import find_weights
from onnxprune.pruning.selectors import select
from onnxprune.quantization.static import KEEPING, OPSET, is_quantized, quantized
from onnxprune.sparse.fold import Folded, fold_all
from onnxprune.sparse.opset import raise_opset

BATCH_SAMPLES = 32
# What activations of all samples may take, where the calibrator keeps them.
KEPT_BYTES = 1 << 30
# Those tried by `auto`, the first of equals.
TRIED = ("minmax", "percentile")
# Squared error of the outputs, relative to their squares, up to which no layer has to stay in floats.
NEAR = 0.01
# More layers than this part of all, or one, are not spared, and only where the error falls to this part of what it was.
MOST_SPARED, WORTH_SPARING = 0.15, 0.5
SCANNED_SAMPLES = 32


class Quantization:
    """The quantization of a pruned model with the inputs of a job."""

    def __init__(self, model: ir.Model, name: str, data: JobData, config: PruneConfig):
        inputs = data.calibration or data.training
        assert inputs is not None
        self._inputs: Dataset = inputs.spread(config.calibration_samples)
        self._data = data
        self._name = name
        self._config = config
        self._fixed = inputs.run_axes.size
        self._model = model

    def run(self) -> tuple[ir.Model, list[Folded], str]:
        """The quantized model, the nodes that went into weights before, and a note.

        Raises:
            ModelFileError: the model is quantized already, or onnxruntime cannot quantize it.
            NothingToPruneError: it has nothing that can be quantized.
        """
        if is_quantized(self._model):
            raise ModelFileError(
                f"{self._name} is quantized already: prune it without --quantize, and its scales are kept"
            )
        model, reason = raise_opset(self._model, partial(same_outputs, self._data), OPSET)
        if reason is not None:
            raise ModelFileError(f"--quantize needs opset {OPSET}: {reason}")
        folded = fold_all(model, find_weights(model).prunable)
        weights = find_weights(model).prunable
        excluded = {
            use.node
            for selector in self._config.quantize_exclude
            for weight in select(selector, weights)
            for use in weight.uses
        }
        ranges, made = self._best_ranges(model, excluded)
        if not any(weight.quantized for weight in find_weights(made).prunable):
            raise NothingToPruneError(
                f"nothing of {self._name} can be quantized to int8: onnxruntime has no integer form of its operators, "
                "or --quantize-exclude names all of them"
            )
        spared, made = self._sparing(model, ranges, made, excluded)
        count = sum(weight.quantized for weight in find_weights(made).prunable)
        note = f"Quantized to int8: {count} of {len(weights)} weights, --quantize-ranges {ranges}."
        if spared:
            note += f" Those that cost most stay in floats: {', '.join(spared)}."
        return made, folded, note

    def _best_ranges(self, model: ir.Model, excluded: set[ir.Node]) -> tuple[str, ir.Model]:
        asked = self._config.quantize_ranges
        if asked != AUTO:
            return asked, self._quantized(model, asked, excluded)
        made = {ranges: self._quantized(model, ranges, excluded) for ranges in TRIED}
        errors = {ranges: self._error(model, each) for ranges, each in made.items()}
        best = min(errors, key=lambda ranges: errors[ranges])
        return best, made[best]

    def _sparing(
        self, model: ir.Model, ranges: str, made: ir.Model, excluded: set[ir.Node]
    ) -> tuple[list[str], ir.Model]:
        """The fewest layers that have to stay in floats for outputs near those in floats, and the model with them.

        Layers are spared by the error that each makes if it alone is quantized. None is where the outputs are near
        already, or sparing a few gains little.
        """
        error = self._error(model, made)
        layers = [
            weight
            for weight in find_weights(model).prunable
            if not any(use.node in excluded or use.node.graph is not model.graph for use in weight.uses)
        ]
        if error <= NEAR:
            return [], made
        some = self._inputs.spread(max(self._fixed or 1, SCANNED_SAMPLES))
        costs = {
            weight: self._error(
                model, quantized(model, self._feeds(some), "minmax", excluded, weight.uses[0].node), some
            )
            for weight in layers
        }
        worst = sorted(layers, key=lambda weight: -costs[weight])
        count = 1
        while count <= max(1, int(MOST_SPARED * len(layers))):
            left = {use.node for weight in worst[:count] for use in weight.uses}
            found = self._quantized(model, ranges, excluded | left)
            left_error = self._error(model, found)
            if left_error <= max(NEAR, WORTH_SPARING * error):
                return [weight.name for weight in worst[:count]], found
            count *= 2
        return [], made

    def _quantized(self, model: ir.Model, ranges: str, excluded: set[ir.Node]) -> ir.Model:
        inputs = self._inputs
        if ranges in KEEPING:
            inputs = inputs.spread(max(self._fixed or 1, int(KEPT_BYTES / self._kept_bytes(model))))
            return quantized(model, _alike(self._feeds(inputs)), ranges, excluded)
        return quantized(model, self._feeds(inputs), ranges, excluded)

    def _batches(self, inputs: Dataset) -> Iterator[Batch]:
        for batch in inputs.batches(BATCH_SAMPLES):
            if self._fixed is None or len(batch) == self._fixed:
                yield batch

    def _feeds(self, inputs: Dataset) -> Iterator[Mapping[str, np.ndarray]]:
        return (batch.feeds() for batch in self._batches(inputs))

    def _kept_bytes(self, model: ir.Model) -> float:
        """The approximate bytes of the activations of a sample."""
        first = next(self._batches(self._inputs))
        shapes = infer_shapes(model, {name: array.shape for name, array in first.feeds().items()})
        sizes = (math.prod(dim for dim in shape if isinstance(dim, int)) for shape in shapes.values())
        return max(1.0, 4.0 * sum(sizes) / max(len(first), 1))

    def _error(self, model: ir.Model, made: ir.Model, inputs: Dataset | None = None) -> float:
        """The squared distance of the outputs to those in floats, relative to their squares; NaN counts as infinite."""
        sessions = [_session(each) for each in (model, made)]
        squares = distance = 0.0
        for batch in self._batches(inputs or self._inputs):
            whole, rounded = (run_batch(session, batch) for session in sessions)
            for one, other in zip(whole, rounded, strict=True):
                if isinstance(one, np.ndarray) and one.dtype.kind == "f":
                    squares += float(np.square(one, dtype=np.float64).sum())
                    distance += float(np.square(one.astype(np.float64) - other).sum())
        error = distance / squares if squares else 0.0
        return error if math.isfinite(error) else math.inf


def _alike(feeds: Iterable[Mapping[str, np.ndarray]]) -> list[Mapping[str, np.ndarray]]:
    """Those of the shapes that most have: a calibrator that keeps activations stacks them."""
    by_shape: dict[tuple[tuple[int, ...], ...], list[Mapping[str, np.ndarray]]] = {}
    for each in feeds:
        by_shape.setdefault(tuple(array.shape for array in each.values()), []).append(each)
    return max(by_shape.values(), key=len)


def _session(model: ir.Model) -> ort.InferenceSession:
    with staging(None) as stage:
        stage.write(model.clone())
        return make_session(stage.path, "the quantized model")

"""What a job runs on its calibration inputs while it quantizes: models, and how far their outputs are apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.evaluation.runs import run_batch, run_feeds
from onnxprune.evaluation.sessions import make_session
from onnxprune.model.files.staging import staging
from onnxprune.quantization.probes import Measure

BATCH_SAMPLES = 32
# Squared error of the outputs, relative to their squares, up to which no layer needs more bits; inputs on which each
# layer is tried alone.
NEAR, SCANNED_SAMPLES = 0.01, 32
# Inputs, and outputs in floats, are kept up to this size: they are needed many times.
KEPT_BYTES = 1 << 29
# This part of the inputs is held out, where there are enough, and decides what is kept.
HELD_OUT, ENOUGH = 0.25, 64


class Inputs:
    """Inputs in batches that the model can be run on."""

    def __init__(self, data: Dataset):
        self.data = data
        self._fixed = data.run_axes.size
        self._kept: list[Batch] | None = None

    @property
    def least(self) -> int:
        """The number of samples of a run, where the model fixes it; else 1."""
        return self._fixed or 1

    def split(self, seed: int) -> tuple[Inputs, Inputs]:
        """Those that something is measured on, and those held out; all of them twice where there are few."""
        if len(self.data) < max(ENOUGH, 2 * self.least / HELD_OUT):
            return self, self
        measured, held = self.data.split(HELD_OUT, seed)
        return Inputs(measured), Inputs(held)

    def some(self, count: float) -> Inputs:
        """At most `count` of them."""
        return Inputs(self.data.spread(max(self.least, int(count))))

    def batches(self) -> Iterator[Batch]:
        """Whole batches, of a model with a fixed batch size."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Batch] | None = []
        for batch in self.data.batches(BATCH_SAMPLES):
            if self._fixed is None or len(batch) == self._fixed:
                yield batch
                if kept is not None:
                    kept.append(batch)
                    whole = sum(array.nbytes for each in kept for array in each.feeds().values())
                    kept = kept if whole < KEPT_BYTES else None
        self._kept = kept

    def feeds(self) -> Iterator[Mapping[str, np.ndarray]]:
        """The inputs by name."""
        return (batch.feeds() for batch in self.batches())

    def probe(self, probed: ir.Model, measure: Measure) -> list[np.ndarray]:
        """The outputs of a probed model over all inputs: their mean, or the largest, in float64."""
        session = session_of(probed)
        found: list[np.ndarray] = []
        total = 0
        for batch in self.batches():
            count = len(batch)
            now = [np.asarray(each, np.float64) for each in run_feeds(session, batch.feeds(), batch.name)]
            if measure == "largest":
                found = [np.maximum(*each) for each in zip(found or now, now, strict=True)]
            else:
                weighed = [each * count for each in now]
                found = [np.add(*each) for each in zip(found, weighed, strict=True)] if found else weighed
            total += count
        return found if measure == "largest" else [each / max(total, 1) for each in found]


class Errors:
    """The squared distance of a model's outputs to those of a model in floats, relative to their squares."""

    def __init__(self, model: ir.Model, inputs: Inputs):
        self._model = model
        self._inputs = inputs
        self._kept: list[list[Any]] | None = None

    def some(self, count: int) -> Errors:
        """The same on fewer inputs."""
        return Errors(self._model, self._inputs.some(count))

    def of(self, made: ir.Model) -> float:
        """That of a model; NaN counts as infinite."""
        session = session_of(made)
        squares = distance = 0.0
        for batch, whole in zip(self._inputs.batches(), self._whole(), strict=True):
            for one, other in zip(whole, run_batch(session, batch), strict=True):
                if isinstance(one, np.ndarray) and one.dtype.kind == "f":
                    squares += float(np.square(one, dtype=np.float64).sum())
                    distance += float(np.square(one.astype(np.float64) - other).sum())
        error = distance / squares if squares else 0.0
        return error if math.isfinite(error) else math.inf

    def _whole(self) -> Iterator[list[Any]]:
        """The outputs in floats, by batch."""
        if self._kept is not None:
            yield from self._kept
            return
        session = session_of(self._model)
        kept: list[list[Any]] | None = []
        size = 0
        for batch in self._inputs.batches():
            outputs = run_batch(session, batch)
            yield outputs
            size += sum(getattr(output, "nbytes", KEPT_BYTES) for output in outputs)
            if kept is not None:
                kept = [*kept, outputs] if size < KEPT_BYTES else None
        self._kept = kept


def alike(feeds: Iterable[Mapping[str, np.ndarray]]) -> list[Mapping[str, np.ndarray]]:
    """Those of the shapes that most have: a calibrator that keeps activations stacks them."""
    by_shape: dict[tuple[tuple[int, ...], ...], list[Mapping[str, np.ndarray]]] = {}
    for each in feeds:
        by_shape.setdefault(tuple(array.shape for array in each.values()), []).append(each)
    return max(by_shape.values(), key=len)


def session_of(model: ir.Model) -> ort.InferenceSession:
    """A session of a model in memory."""
    with staging(None) as stage:
        stage.write(model.clone())
        return make_session(stage.path, "the quantized model")

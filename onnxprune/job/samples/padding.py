"""The padding of sequences is cut off for training and calibration where the model does not mind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.padding import Padding, paddings
from onnxprune.data.ragged import is_ragged
from onnxprune.errors import OnnxPruneError
from onnxprune.evaluation.runs import run_batch
from onnxprune.job.samples.inputs import JobData
from onnxprune.reports.record import Detail

SAMPLES = 64
# With more of the positions left, cutting does not pay.
MOST_LEFT = 0.9
# The largest difference, as a part of the largest value: other sizes are computed in another order.
TOLERANCE = 1e-3


def cut_padding(
    model: ir.Model, baseline: ort.InferenceSession | None, data: JobData
) -> tuple[JobData, tuple[str, ...]]:
    """The data of a job that cuts padding off its runs, if there is training or calibration, and notes.

    Where there are norms they measure what they are given, so padding stays; also where labels are of its positions.
    """
    given = data.training or data.calibration
    norms = any(node.op_type == "BatchNormalization" for node in model.graph)
    if baseline is None or given is None or given.source.sequential or given.axes.whole or norms:
        return data, ()
    some = given.spread(SAMPLES)
    batch = some.read()
    if any(map(is_ragged, (*batch.inputs.values(), *batch.labels.values()))):
        return data, ()
    for padding in paddings(data.specs, given.axes.of, batch.inputs):
        left = float(padding.lengths(batch.inputs).mean() / _positions(batch, padding))
        if left > MOST_LEFT or _labels_positions(batch, padding):
            continue
        if not _same(baseline, some, padding, resized=not _several(batch)):
            continue
        names = " and ".join(map(repr, padding.masks))
        note = Detail(
            f"Padding was cut off for training and calibration where {names} {'are' if padding.others else 'is'} zero, "
            f"with equal outputs for {len(batch)} samples: {left:.0%} of the positions are left."
        )
        return data.fitted_along(replace(given.run_axes, padding=padding)), (note,)
    return data, ()


def _positions(batch: Batch, padding: Padding) -> int:
    return batch.inputs[padding.mask].shape[padding.axes[padding.mask]]


def _labels_positions(batch: Batch, padding: Padding) -> bool:
    """Whether labels may be of single positions."""
    return any(_positions(batch, padding) in array.shape[1:] for array in _labels(batch))


def _several(batch: Batch) -> bool:
    """Whether a sample has several labels, which may be of what positions are joined to."""
    return any(array.ndim > 1 for array in _labels(batch))


def _labels(batch: Batch) -> tuple[np.ndarray, ...]:
    return (*batch.labels.values(), *batch.given.values())


def _same(baseline: ort.InferenceSession, some: Dataset, padding: Padding, *, resized: bool) -> bool:
    """Whether the outputs are equal without padding; outputs of single positions, if they may be, for those left."""
    cut = replace(some, axes=replace(some.axes, padding=padding), freed=None)
    whole = replace(some, freed=None)
    try:
        return all(
            _equal(np.asarray(one), np.asarray(other)) and (resized or np.shape(one) == np.shape(other))
            for each in _single_runs(whole, cut)
            for one, other in zip(*(run_batch(baseline, batch) for batch in each), strict=True)
        )
    except OnnxPruneError:
        return False


def _single_runs(whole: Dataset, cut: Dataset) -> Iterator[tuple[Batch, Batch]]:
    """Each sample, or each run of a fixed size, as it is and without its padding."""
    size = whole.axes.size or 1
    return zip(whole.batches(size), cut.batches(size), strict=True)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    if one.ndim != other.ndim or one.dtype.kind not in "iubf":
        return False
    same = one[tuple(slice(0, size) for size in other.shape)]
    if same.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool((same == other).all())
    largest = float(np.abs(one).max(initial=0))
    return bool(np.allclose(same, other, rtol=0, atol=TOLERANCE * largest, equal_nan=True))

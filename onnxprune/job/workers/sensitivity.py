"""A sensitivity scan by workers: each measures consecutive weights, in a process that opens the model itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from onnxprune.calibration.sensitivity import Deviation, in_order, measure
from onnxprune.data.batch import Batch
from onnxprune.job.workers.parcel import Sendable, sendable, unpacked
from onnxprune.job.workers.pool import InTurn, Workers
from onnxprune.model.files.replace import working_folder
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.sensitivity import Measure, PrunedArrays, pruned_arrays
from onnxprune.sparse.opening import OpenedModel
from onnxprune.system.cores import usable_cores
from onnxprune.system.progress import StageProgress

# Parts for each worker: the nodes before a part are run for it again, but those of early weights take longer.
PARTS = 2

Found = dict[str, dict[float, Deviation]]


@dataclass(frozen=True)
class _Scan:
    """What all parts of a scan share; `workers`: how many of them share the machine, for runs on `cores` cores."""

    model: Sendable
    data: Batch
    rates: tuple[float, ...]
    cores: int
    workers: int


def measured_by(workers: Workers, opened: OpenedModel, data: Batch, rates: Sequence[float]) -> Measure:
    """The deviations of weights at these rates, measured by workers."""
    if isinstance(workers, InTurn):
        return partial(measure, opened.model, data)
    cores = usable_cores()
    shared = _Scan(
        sendable(opened.origin, workers.here),
        data,
        tuple(rates),
        cores,
        # On a cluster, each has one core.
        workers.count if workers.here else cores,
    )

    def measured(
        weights: Sequence[Weight], arrays: PrunedArrays
    ) -> Iterator[tuple[Weight, Mapping[float, Deviation]]]:
        ordered = in_order(opened.model, weights)
        count = min(len(ordered), PARTS * workers.count)
        bounds = [len(ordered) * part // max(count, 1) for part in range(count + 1)]
        parts = [ordered[start:end] for start, end in itertools.pairwise(bounds)]
        names = [[weight.name for weight in part] for part in parts]
        found = workers.perform(_measure_part, shared, names, lambda stage, fraction: None)
        for part, deviations in zip(parts, found, strict=True):
            yield from ((weight, deviations[weight.name]) for weight in part)

    return measured


def _measure_part(scan: _Scan, names: Sequence[str], progress: StageProgress) -> Found:
    with working_folder(None) as copies:
        model = unpacked(scan.model, copies).model
        weights = [weight for weight in find_weights(model).all if weight.name in names]
        arrays = partial(pruned_arrays, rates=scan.rates)
        found = measure(model, scan.data, weights, arrays, scan.cores, scan.workers)
        return {weight.name: deviations for weight, deviations in found}

"""How far a model's outputs move when one weight alone is pruned: each run starts at that weight, not at the inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.segments import Segment
from onnxprune.calibration.walk import Visit, batches, walk
from onnxprune.data import Dataset, class_axis
from onnxprune.model.weights import Weight


@dataclass(frozen=True)
class Deviation:
    """What pruning did to the outputs: |y - y0|^2 / |y0|^2, and the share of labels missed (None without classes)."""

    outputs: float
    error: float | None


def measure(
    model: ir.Model,
    data: Dataset,
    weights: Collection[Weight],
    variants: Callable[[Weight], Mapping[float, np.ndarray]],
) -> Iterator[tuple[Weight, dict[float, Deviation]]]:
    """For each weight in the order of the graph, the deviation with each of its variants (arrays by rate) in its place.

    What the nodes before a weight give is computed once for all of its variants. Weights in the body of an If are
    passed over.

    Raises:
        DataError: a stretch of the model does not run alone.
    """
    by_node: dict[ir.Node, list[Weight]] = {}
    for weight in weights:
        by_node.setdefault(weight.uses[0].node, []).append(weight)
    outputs = list(model.graph.outputs)
    labels = [batch.labels for batch in batches(model, data)]
    dense: list[dict[ir.Value, np.ndarray]] | None = None
    for visit in walk(model, None, data, by_node.keys()):
        if dense is None:
            rest = Segment(model, visit.place, len(model.graph), outputs)
            dense = [batch | rest.run(batch) for batch in visit.pruned]
            dense = [{value: batch[value] for value in outputs} for batch in dense]
        for weight in by_node[visit.node]:
            tail = Segment(model, visit.place, len(model.graph), outputs, free=weight.value)
            yield (
                weight,
                {
                    rate: _deviation(visit, tail, weight, array, dense, labels)
                    for rate, array in variants(weight).items()
                },
            )


def _deviation(
    visit: Visit,
    tail: Segment,
    weight: Weight,
    array: np.ndarray,
    dense: Sequence[Mapping[ir.Value, np.ndarray]],
    labels: Sequence[np.ndarray | None],
) -> Deviation:
    moved = size = 0.0
    wrong = judged = 0
    for arrays, expected, truth in zip(visit.pruned, dense, labels, strict=True):
        given = arrays | tail.run(arrays | {weight.value: array})
        for value, old in expected.items():
            if old.dtype.kind == "f":
                moved += float(np.square(given[value].astype(np.float64) - old).sum())
                size += float(np.square(old.astype(np.float64)).sum())
        first = given[next(iter(expected))]
        axis = None if truth is None or truth.dtype.kind == "f" else class_axis(first.shape, truth.shape)
        if truth is not None and axis is not None:
            wrong += int((first.argmax(axis) != truth).sum())
            judged += truth.size
    return Deviation(moved / size if size else 0.0, wrong / judged if judged else None)

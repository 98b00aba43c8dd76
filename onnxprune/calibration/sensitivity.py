"""How far a model's outputs move when one weight is pruned: each run starts at that weight, not at the inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.segments import Segment, compared, compared_value, last_reads
from onnxprune.calibration.walk import Visit, batches, walk
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import class_axis
from onnxprune.errors import NotFiniteError
from onnxprune.evaluation.values import arrays_of
from onnxprune.model.excerpt import reads_within
from onnxprune.model.weights import Weight
from onnxprune.system.cores import usable_cores

# The deviation of outputs that are not finite.
LARGEST = 1e9


@dataclass(frozen=True)
class Deviation:
    """`outputs`: |y - y0|^2 / |y0|^2 of the compared values; `error`: fraction of wrong labels (None without them)."""

    outputs: float
    error: float | None


def measure(
    model: ir.Model,
    data: Batch,
    weights: Collection[Weight],
    pruned_arrays: Callable[[Weight], Mapping[float, np.ndarray]],
    cores: int | None = None,
    workers: int = 1,
) -> Iterator[tuple[Weight, dict[float, Deviation]]]:
    """For each weight, in the order of the graph, the deviation with each of its pruned arrays, by rate.

    The nodes before a weight are run once for all of its arrays; the nodes from it to the next weight have a session
    for each array, and the nodes after those have one session. A weight in the body of an If, Loop or Scan is read by
    that node. `workers`: the number of processes that share the `cores` (by default, those that this process may use);
    the threads of a run do not depend on it.

    Raises:
        DataError: onnxruntime cannot run a segment of the model.
    """
    by_node, last_read = _by_first_reader(model, weights)
    last = last_reads(model)
    size = len(model.graph)
    cores = cores or usable_cores()
    places = [place for place, node in enumerate(model.graph) if node in by_node]
    following = dict(itertools.pairwise([*places, size]))
    outputs = compared(model)
    scored, key = _labeled(model, data)
    labels = [batch.labels.get(key) for batch in batches(model, data)]
    dense: list[dict[ir.Value, Any]] | None = None
    for visit in walk(model, None, data, by_node.keys()):
        if dense is None:
            dense = outputs_behind(model, visit, outputs)
        for weight in by_node[visit.node]:
            end = following[visit.place] if last_read[weight] < following[visit.place] else size
            alive = {value for value, index in last.items() if index >= end}
            arrays = pruned_arrays(weight)
            # Parallel runs take a fifth less CPU time than consecutive runs on all cores (VGG-16, two cores).
            parallel = max(1, min(cores, len(arrays)))
            segment = partial(Segment, model, threads=cores // parallel)
            tail = segment(end, size, outputs)
            heads = (
                segment(
                    visit.place,
                    end,
                    alive,
                    instead={weight.value: ir.Tensor(array, dtype=weight.tensor.dtype)},
                )
                for array in arrays.values()
            )
            deviation = partial(_deviation, visit, tail, dense, labels, scored)
            with ThreadPoolExecutor(max(1, parallel // workers)) as pool:
                yield weight, dict(zip(arrays, pool.map(deviation, heads), strict=True))


def in_order(model: ir.Model, weights: Collection[Weight]) -> list[Weight]:
    """The weights that `measure` measures, in its order."""
    by_node, _ = _by_first_reader(model, weights)
    return [weight for found in by_node.values() for weight in found]


def _by_first_reader(
    model: ir.Model, weights: Collection[Weight]
) -> tuple[dict[ir.Node, list[Weight]], dict[Weight, int]]:
    """The weights by the first node that reads each, and the index of the last one (there may be a Transpose)."""
    wanted = {weight.value: weight for weight in weights}
    by_node: dict[ir.Node, list[Weight]] = {}
    last_read: dict[Weight, int] = {}
    for place, node in enumerate(model.graph):
        for weight in {wanted[value]: None for value in reads_within(node) if value in wanted}:
            if weight not in last_read:
                by_node.setdefault(node, []).append(weight)
            last_read[weight] = place
    return by_node, last_read


def _labeled(model: ir.Model, data: Batch) -> tuple[ir.Value, str]:
    """What is compared with labels, and their key: those of the first output, or of the first one that has some."""
    outputs = {output.name: output for output in model.graph.outputs}
    key = next((name for name in ("", *outputs) if name in data.labels), "")
    return compared_value(outputs[key] if key else model.graph.outputs[0]), key or ""


def _deviation(
    visit: Visit,
    tail: Segment,
    dense: Sequence[Mapping[ir.Value, Any]],
    labels: Sequence[np.ndarray | None],
    scored: ir.Value,
    head: Segment,
) -> Deviation:
    moved = size = 0.0
    wrong = total = 0
    for arrays, expected, truth in zip(visit.pruned, dense, labels, strict=True):
        given = dict(arrays)
        for segment in (head, tail):
            given |= segment.run(given)
        squares = squares_of(expected, given)
        moved, size = moved + squares[0], size + squares[1]
        axis = None
        if truth is not None and truth.dtype.kind != "f" and isinstance(given.get(scored), np.ndarray):
            axis = class_axis(given[scored].shape, truth.shape)
        if truth is not None and axis is not None:
            # Negative classes are positions to ignore.
            wrong += int(((given[scored].argmax(axis) != truth) & (truth >= 0)).sum())
            total += int((truth >= 0).sum())
    return Deviation(relative(moved, size, next(iter(dense[0]))), wrong / total if total else None)


def outputs_behind(model: ir.Model, visit: Visit, outputs: Collection[ir.Value]) -> list[dict[ir.Value, Any]]:
    """The outputs of the model as it is, by batch, computed from the node of a visit on."""
    rest = Segment(model, visit.place, len(model.graph), outputs)
    values = [batch | rest.run(batch) for batch in visit.pruned]
    return [{value: batch[value] for value in outputs} for batch in values]


def squares_of(expected: Mapping[ir.Value, Any], given: Mapping[ir.Value, Any]) -> tuple[float, float]:
    """|y - y0|^2 and |y0|^2 of the expected values of a batch."""
    moved = size = 0.0
    for value, whole in expected.items():
        for old, new in zip(arrays_of(whole), arrays_of(given[value]), strict=False):
            if old.dtype.kind == "f":
                # Infinity of both is refused by `relative`.
                with np.errstate(invalid="ignore"):
                    moved += _square(new - old) if new.shape == old.shape else np.inf
                size += _square(old)
    return moved, size


def relative(moved: float, size: float, output: ir.Value) -> float:
    """|y - y0|^2 / |y0|^2, at most `LARGEST`.

    Raises:
        NotFiniteError: y0 is not finite.
    """
    if not np.isfinite(size):
        raise NotFiniteError(
            f"output {output.name!r} of the input model is not finite on the data, so its deviation says nothing: give "
            "data on which it is, or prune with --allocation uniform"
        )
    return float(np.nan_to_num(moved / size if size else 0.0, nan=LARGEST, posinf=LARGEST))


def _square(array: np.ndarray) -> float:
    return float(np.square(array.astype(np.float64)).sum())

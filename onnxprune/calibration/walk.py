"""A walk through a model, layer by layer, with the inputs of each layer in the partly pruned model."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.segments import Arrays, Segment, Tensors, last_reads
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.model.constants import constant_tensor
from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.model.weights import find_weights

BATCH_SAMPLES = 32
# Limit of the largest value of a batch. Larger ones do not fit the caches and are allocated anew at every run: a sample
# of VGG-16 takes 15 to 30 % longer in a batch of 8 than alone.
BATCH_BYTES = 16 * 2**20
# Memory limit of all samples at the layer where most is alive, in the dense model and in the pruned one.
WALK_BYTES = 4 * 2**30
MODELS = 2


@dataclass(frozen=True)
class Visit:
    """A node about to run, and all values that are alive before it, by batch, in both models."""

    node: ir.Node
    place: int
    """The index of the node in the graph."""
    dense: Sequence[Arrays] = field(repr=False)
    pruned: Sequence[Arrays] = field(repr=False)

    def pairs(self, value: ir.Value) -> list[tuple[np.ndarray, np.ndarray]]:
        """An input of the node by batch: (in the dense model, in the pruned model)."""
        return [(dense[value], pruned[value]) for dense, pruned in zip(self.dense, self.pruned, strict=True)]


def walk(model: ir.Model, dense: Tensors | None, data: Batch, nodes: Collection[ir.Node]) -> Iterator[Visit]:
    """Visit nodes of the main graph in order; changes made at a visit affect all later visits.

    `dense`: the constants of the dense model that differ, or will differ, from those of the model; None: nothing is
    changed, and the two models are the same. Each segment between two visits is run once per model.

    Raises:
        DataError: onnxruntime cannot run a segment of the model.
    """
    last = last_reads(model)
    pruned = [_inputs(model, batch) for batch in batches(model, data)]
    streams: list[tuple[list[Arrays], Tensors | None]] = [(pruned, None)]
    if dense is not None:
        streams = [([dict(arrays) for arrays in pruned], dense), *streams]
    reached = 0
    for place, node in enumerate(model.graph):
        if node not in nodes:
            continue
        alive = {value for value, index in last.items() if index >= place}
        for stream, instead in streams:
            segment = Segment(model, reached, place, alive, instead=instead)
            for arrays in stream:
                arrays.update(segment.run(arrays))
                for value in arrays.keys() - alive:
                    del arrays[value]
        reached = place
        yield Visit(node, place, streams[0][0], pruned)


def affordable(model: ir.Model, data: Dataset, most: int) -> int:
    """The number of samples of a walk: at most `most`, fewer if a wide graph would need too much memory."""
    run = data.run_axes.size or 1
    first = data.take(slice(0, run)).read()
    return max(run, min(most, len(data), int(WALK_BYTES / (MODELS * _alive_bytes(model, first)))))


def batches(model: ir.Model, data: Batch) -> Iterator[Batch]:
    """The batches of `places`."""
    return map(data.at, places(model, data))


def places(model: ir.Model, data: Batch) -> list[np.ndarray | slice]:
    """The samples of each batch: of the fixed batch size, without the rest; if it is dynamic, a few of one shape.

    Sequences of similar length are together: what layers read of padding says nothing about them.
    """
    fixed = data.axes.size
    size = fixed or min(BATCH_SAMPLES, max(1, int(BATCH_BYTES / _widest_bytes(model, data))))
    every = np.arange(len(data))
    found = data.places(size, ordered=False)
    return [place for place in found if fixed is None or len(every[place]) == fixed]


def _alive_bytes(model: ir.Model, data: Batch) -> float:
    """The bytes per sample of the values that are alive at a layer, where they are most; with all padding."""
    sizes = _sizes(model, replace(data, axes=replace(data.axes, padding=None)))
    layers = {use.node for weight in find_weights(model).all for use in weight.uses}
    last = last_reads(model)
    alive = {value: sizes.get(value, 0.0) for value in model.graph.inputs if value in last}
    most = 0.0
    for place, node in enumerate(model.graph):
        alive = {value: size for value, size in alive.items() if last[value] >= place}
        if node in layers:
            most = max(most, sum(alive.values()))
        alive |= {value: sizes.get(value, 0.0) for value in node.outputs if value in last}
    return most or max(sizes.values(), default=1.0)


def _widest_bytes(model: ir.Model, data: Batch) -> float:
    """The approximate bytes per sample of the largest computed value."""
    return max(_sizes(model, data).values(), default=1.0) or 1.0


def _sizes(model: ir.Model, data: Batch) -> dict[ir.Value, float]:
    """The approximate bytes per sample of computed values, and of inputs."""
    size = max(1, min(data.axes.size or 1, len(data)))
    given = {name: array.shape for name, array in data.at(slice(0, size)).feeds().items()}
    itemsize = np.dtype(np.float32).itemsize
    return {
        value: itemsize * math.prod(dim for dim in shape if isinstance(dim, int)) / size
        for value, shape in infer_shapes(model, given).items()
        if constant_tensor(value) is None
    }


def _inputs(model: ir.Model, batch: Batch) -> Arrays:
    named = {value.name: value for value in model.graph.inputs}
    return {named[name]: array for name, array in batch.feeds().items()}

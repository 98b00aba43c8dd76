"""How long each layer takes in onnxruntime, alone, on what it reads in the model, with fewer and fewer channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.segments import Arrays, Segment, Tensors
from onnxprune.calibration.walk import Visit, walk
from onnxprune.data.batch import Batch
from onnxprune.evaluation.sessions import LOG_FATAL_ONLY
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constant_tensor
from onnxprune.model.files.sessions import open_session
from onnxprune.model.weights import Weight
from onnxprune.runtime.timing import quickest, session_options, take_turns

# The parts of its channels with which a layer is timed, in numbers of channels that are multiples of `BLOCK`.
WIDTHS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
BLOCK = 8
BURST_SECONDS, ROUNDS = 0.004, 5

Kind = tuple
"""What the time of a layer depends on: its operator and attributes, and the shapes that it reads."""


@dataclass(frozen=True)
class LayerTime:
    """What a layer takes, in seconds a run, by the shape that is left of its weight.

    `parts`: by axis of the weight, numbers of positions, ascending, and the parts of `seconds` that the layer takes
    with as many. Those of inputs and outputs are multiplied. Without them the time is proportional to the elements.
    """

    seconds: float
    shape: tuple[int, ...]
    parts: Mapping[int, tuple[Sequence[int], Sequence[float]]]

    def at(self, shape: Sequence[int]) -> float:
        """The seconds with this shape of the weight."""
        if not self.parts:
            return self.seconds * math.prod(shape) / max(math.prod(self.shape), 1)
        parts = [float(np.interp(shape[axis], *curve)) for axis, curve in self.parts.items()]
        return self.seconds * math.prod(parts)


def time_layers(model: ir.Model, weights: Sequence[Weight], data: Batch) -> dict[str, LayerTime]:
    """The time of the layer of each weight on `data`, by the name of the weight; the model is not changed.

    Layers of one operator and shape are timed once, and all of them in turns. Layers in subgraphs, and those that
    onnxruntime does not run alone, are left out. Several weights of one layer share its time in proportion to their
    sizes.

    Raises:
        DataError: onnxruntime cannot run the model layer by layer.
    """
    by_node: dict[ir.Node, list[Weight]] = {}
    for weight in weights:
        by_node.setdefault(weight.uses[0].node, []).append(weight)
    runs: dict[Kind, Callable[[], object] | None] = {}
    cuts: dict[str, list[tuple[int, int, Kind]]] = {}
    for visit in walk(model, None, data, by_node.keys() & set(model.graph)):
        for weight in by_node[visit.node]:
            for axis, size, cut in (_whole(visit), *_cuts(weight, visit)):
                kind = cut.kind()
                if kind not in runs:
                    runs[kind] = cut.run(model)
                if runs[kind] is not None:
                    cuts.setdefault(weight.name, []).append((axis, size, kind))
                elif not axis and not size:
                    break
    running = {kind: run for kind, run in runs.items() if run is not None}
    columns = take_turns([partial(quickest, run, BURST_SECONDS) for run in running.values()], ROUNDS)
    seconds = {kind: min(column) for kind, column in zip(running, columns, strict=True)}
    found = {}
    for some in by_node.values():
        whole = sum(weight.size for weight in some)
        for weight in some:
            if weight.name in cuts:
                share = len(weight.uses) * weight.size / max(whole, 1)
                found[weight.name] = _layer_time(weight, share, cuts[weight.name], seconds)
    return found


def _layer_time(
    weight: Weight, share: float, cuts: Sequence[tuple[int, int, Kind]], seconds: Mapping[Kind, float]
) -> LayerTime:
    (_, _, kind), *narrower = cuts
    whole = seconds[kind]
    parts = {}
    for axis in dict.fromkeys(axis for axis, _, _ in narrower):
        sizes = [size for other, size, _ in narrower if other == axis]
        taken = [seconds[kind] for other, _, kind in narrower if other == axis]
        # Fewer channels never cost more: what is faster with more has them added.
        rising = np.minimum.accumulate([*taken, whole][::-1])[::-1]
        parts[axis] = [*sizes, weight.shape[axis]], (rising / whole).tolist()
    return LayerTime(share * whole, weight.shape, parts)


@dataclass(frozen=True)
class _Cut:
    """A layer that reads some of its values cut: computed ones, constants, and its number of groups."""

    visit: Visit
    arrays: Arrays
    constants: Tensors
    groups: int | None = None

    def kind(self) -> Kind:
        """What its time depends on."""
        read = []
        for value in self.visit.node.inputs:
            array = None if value is None else self._read(value)
            read.append(None if array is None else (tuple(array.shape), str(array.dtype)))
        attributes = {name: str(attribute.value) for name, attribute in self.visit.node.attributes.items()}
        return self.visit.node.domain, self.visit.node.op_type, self.groups, str(attributes), tuple(read)

    def run(self, model: ir.Model) -> Callable[[], object] | None:
        """Runs the layer as a model of its own; None where onnxruntime does not."""
        place = self.visit.place
        segment = Segment(model, place, place + 1, self.visit.node.outputs, instead=self.constants)
        arrays = self.visit.pruned[0] | self.arrays
        proto = segment.proto(arrays)
        if self.groups is not None:
            for attribute in proto.graph.node[-1].attribute:
                if attribute.name == "group":
                    attribute.i = self.groups
        options = session_options()
        # A layer that does not run alone is left out; what onnxruntime says of it is no fault of the model.
        options.log_severity_level = LOG_FATAL_ONLY
        try:
            session = open_session(proto.SerializeToString(), options, "a layer of the model")
            run = partial(session.run, None, {value.name: arrays[value] for value in segment.reads})
            run()
        # The exceptions of onnxruntime have no common base class.
        except Exception:
            return None
        return run

    def _read(self, value: ir.Value) -> np.ndarray | ir.TensorProtocol | None:
        found = self.constants.get(value) or constant_tensor(value)
        return (self.visit.pruned[0] | self.arrays).get(value) if found is None else found


def _whole(visit: Visit) -> tuple[int, int, _Cut]:
    return 0, 0, _Cut(visit, {}, {})


def _cuts(weight: Weight, visit: Visit) -> Iterator[tuple[int, int, _Cut]]:
    """The layer with fewer channels: the axis of the weight, how many of its positions are left, and what is cut."""
    if not Blocks.fit(weight):
        return
    blocks = Blocks.of(weight)
    groups = blocks.shape[0] if weight.op_type == "Conv" else 1
    data, along = visit.pruned[0][blocks.data], blocks.data_axis
    outputs = weight.shape[weight.out_axis]
    for size in _sizes(outputs, outputs // groups if groups > 1 else 1):
        constants = _first(visit.node, weight, weight.out_axis, size)
        arrays = _first_computed(visit, weight, blocks.data, size)
        if groups == 1:
            yield weight.out_axis, size, _Cut(visit, arrays, constants)
            continue
        left = size * groups // outputs
        arrays[blocks.data] = _taken(data, along, left * data.shape[along] // groups)
        yield weight.out_axis, size, _Cut(visit, arrays, constants, left)
    for size in _sizes(weight.shape[weight.in_axis], 1) if groups == 1 else ():
        cut = _taken(weight.tensor.numpy(), weight.in_axis, size)
        constants = {weight.value: ir.Tensor(cut, dtype=weight.tensor.dtype)}
        yield weight.in_axis, size, _Cut(visit, {blocks.data: _taken(data, along, size)}, constants)


def _sizes(channels: int, unit: int) -> list[int]:
    """Smaller numbers of channels, ascending: common multiples of `BLOCK` and of `unit`, the outputs of a group."""
    step = math.lcm(BLOCK, unit)
    sizes = {step * round(channels * width / step) for width in WIDTHS}
    return sorted(size for size in sizes if 0 < size < channels)


def _first(node: ir.Node, weight: Weight, axis: int, size: int) -> dict[ir.Value, ir.TensorProtocol]:
    """The first outputs of a layer: of its weight, and of the bias."""
    cut: dict[ir.Value, ir.TensorProtocol] = {}
    for value in node.inputs:
        tensor = constant_tensor(value)
        if value is None or tensor is None:
            continue
        along = axis if value is weight.value else len(tensor.shape) - 1
        if along >= 0 and tensor.shape[along] == weight.shape[axis]:
            cut[value] = ir.Tensor(_taken(tensor.numpy(), along, size), dtype=tensor.dtype)
    return cut


def _first_computed(visit: Visit, weight: Weight, data: ir.Value, size: int) -> Arrays:
    """The first outputs of what a layer reads beside its weight and data, such as a computed bias."""
    outputs = weight.shape[weight.out_axis]
    read = {value: visit.pruned[0].get(value) for value in visit.node.inputs if value is not None}
    return {
        value: _taken(array, array.ndim - 1, size)
        for value, array in read.items()
        if value is not data and array is not None and array.ndim and array.shape[-1] == outputs
    }


def _taken(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    return np.ascontiguousarray(np.take(array, range(size), axis))

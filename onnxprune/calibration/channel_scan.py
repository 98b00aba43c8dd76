"""The channels of each layer on calibration inputs: which go first, and how far the outputs move without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.corrections import bias_of
from onnxprune.calibration.elimination import Elimination, Reader, eliminate
from onnxprune.calibration.moments import check_finite, outer, still
from onnxprune.calibration.refit import COLUMNS
from onnxprune.calibration.segments import Segment, Tensors, compared
from onnxprune.calibration.sensitivity import outputs_behind, relative, squares_of
from onnxprune.calibration.walk import Visit, walk
from onnxprune.data.batch import Batch
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constant_tensor
from onnxprune.model.weights import Weight

Group = Mapping[tuple[str, int], np.ndarray]

# Fractions of a layer's channels at which the outputs are measured.
SCANNED = (0.1, 0.25, 0.4, 0.6, 0.8)
# Most inputs of a layer that is fitted; (inputs, inputs) matrices of all layers are in memory at once.
WIDEST = 8192


@dataclass
class Layer:
    """Coupled channels: the positions of each in weights, and the weights that read them."""

    groups: Sequence[Group]
    most: int
    readers: Sequence[Weight]
    means: Sequence[np.ndarray] = ()
    elimination: Elimination | None = field(default=None, repr=False)

    def stops(self) -> list[int]:
        """The numbers of channels at which the layer is measured, ascending from 1."""
        counts = {min(max(1, round(part * len(self.groups))), self.most) for part in SCANNED}
        return sorted(count for count in counts | {self.most} if count > 0)

    def refined(self, curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        """A measured curve at every number of channels; between two measurements, the readers' errors give its form."""
        if self.elimination is None:
            return list(curve)
        errors = np.maximum(np.cumsum(self.elimination.errors), np.finfo(np.float32).tiny)
        counts = np.array([count for count, _ in curve])
        ratios = np.array([deviation for _, deviation in curve]) / errors[counts - 1]
        every = np.arange(1, len(errors) + 1)
        return list(zip(every.tolist(), (np.interp(every, counts, ratios) * errors).tolist(), strict=True))


Zeroed = Callable[[Layer, int], dict[ir.Value, ir.TensorProtocol]]


def readers_of(groups: Sequence[Group], weights: Sequence[Weight]) -> list[Weight]:
    """The weights that read channels of a layer, if a least-squares fit can make up for all that they lose.

    Empty: no weight reads them, or one that is not fitted does.
    """
    found = []
    by_name = {weight.name: weight for weight in weights}
    for name, axis in groups[0]:
        weight = by_name.get(name)
        if weight is not None and axis == weight.out_axis:
            continue
        if weight is None or not fits(weight) or Blocks.of(weight).shape[0] > 1 or axis != weight.in_axis:
            return []
        found.append(weight)
    return found


def fits(weight: Weight) -> bool:
    """Whether a layer can be fitted to its inputs."""
    return (
        len(weight.uses) == 1
        and not weight.quantized
        and Blocks.fit(weight)
        and Blocks.of(weight).shape[2] <= WIDEST
    )


def order_channels(
    model: ir.Model,
    data: Batch,
    layers: Sequence[Layer],
    seed: int,
    given: Sequence[np.ndarray] | None = None,
) -> None:
    """Find the order in which the channels of each layer go, by the layers that read them, or take one `given`."""
    needed: dict[ir.Node, list[Weight]] = {}
    for layer in layers:
        for weight in layer.readers:
            needed.setdefault(weight.uses[0].node, [])
            if weight not in needed[weight.uses[0].node]:
                needed[weight.uses[0].node].append(weight)
    moments = {}
    for visit in walk(model, None, data, needed.keys()):
        for weight in needed[visit.node]:
            moments[weight] = second_moments(weight, visit, seed)
    for number, layer in enumerate(layers):
        if not layer.readers:
            continue
        readers = [
            Reader(
                Blocks.of(weight).split(weight.array())[0].astype(np.float64),
                moments[weight][0],
                columns_of(weight, layer.groups),
                moments[weight][2],
            )
            for weight in layer.readers
        ]
        layer.means = [moments[weight][1] for weight in layer.readers]
        layer.elimination = eliminate(
            readers, layer.most, layer.stops(), None if given is None else given[number]
        )


def second_moments(weight: Weight, visit: Visit, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Of the inputs of a layer, (inputs, inputs), central ones where a bias takes up the mean; the mean; the count."""
    blocks = Blocks.of(weight)
    size = blocks.shape[2]
    centered = bias_of(weight) is not None
    second, mean, count = np.zeros((size, size)), np.zeros(size), 0
    pivot: np.ndarray | None = None
    most = -(-COLUMNS // len(visit.pruned))
    for number, batch in enumerate(visit.pruned):
        columns = blocks.columns(batch[blocks.data].astype(np.float32, copy=False), most, seed + number)[0]
        with np.errstate(over="ignore", invalid="ignore"):
            if pivot is None:
                pivot = columns.mean(1, keepdims=True) * np.float32(centered)
            columns = columns - pivot
            second += columns @ columns.T
        mean += columns.sum(1, dtype=np.float64)
        count += columns.shape[1]
    check_finite((second,), blocks.node)
    second, mean = second / count, mean / count
    if not centered or pivot is None:
        return second, mean, count
    second, mean = second - outer(mean, mean), mean + pivot[:, 0]
    return second + still(mean), mean, count


def columns_of(weight: Weight, groups: Sequence[Group]) -> list[np.ndarray]:
    """For each group, the indices of the inputs of a layer that are at its positions."""
    shape = [1] * len(weight.shape)
    shape[weight.in_axis] = -1
    numbers = np.arange(weight.shape[weight.in_axis]).reshape(shape)
    of_column = Blocks.of(weight).split(np.broadcast_to(numbers, weight.shape))[0, 0]
    at = weight.name, weight.in_axis
    return [np.flatnonzero(np.isin(of_column, group[at])) for group in groups]


def measure_channels(
    model: ir.Model, data: Batch, layers: Sequence[Layer], zeroed: Zeroed
) -> Iterator[tuple[int, list[tuple[int, float]]]]:
    """For each layer, by its index, the deviation of the outputs by the number of channels gone.

    What reads the channels is fitted anew.
    `zeroed(layer, count)`: constants with zeros at the first channels, for layers without readers.
    """
    places = {node: place for place, node in enumerate(model.graph)}
    size = len(places)
    outputs = compared(model)
    changes = [_changes(layer, zeroed) for layer in layers]
    first: dict[ir.Node, list[int]] = {}
    for number, change in enumerate(changes):
        values = {value for instead in change.values() for value in instead}
        nodes = [use.node for value in values for use in value.uses() if use.node in places]
        if nodes:
            first.setdefault(min(nodes, key=lambda node: places[node]), []).append(number)
    dense = None
    for visit in walk(model, None, data, first.keys()):
        if dense is None:
            dense = outputs_behind(model, visit, outputs)
        for number in first[visit.node]:
            curve = []
            for count, instead in changes[number].items():
                segment = Segment(model, visit.place, size, outputs, instead=instead)
                squares = [
                    squares_of(expected, batch | segment.run(batch))
                    for batch, expected in zip(visit.pruned, dense, strict=True)
                ]
                change, whole = (sum(part) for part in zip(*squares, strict=True))
                curve.append((count, relative(change, whole, outputs[0])))
            yield number, curve


def deviation(model: ir.Model, dense: Tensors, data: Batch) -> float:
    """|y - y0|^2 / |y0|^2 of the outputs of a model; y0: of the model with the constants `dense`."""
    size, outputs = len(model.graph), compared(model)
    first = next(node for node in model.graph if constant_tensor(node.outputs[0]) is None)
    moved = whole = 0.0
    for visit in walk(model, None, data, {first}):
        before = Segment(model, visit.place, size, outputs, instead=dense)
        after = Segment(model, visit.place, size, outputs)
        for batch in visit.pruned:
            squares = squares_of(before.run(batch), after.run(batch))
            moved, whole = moved + squares[0], whole + squares[1]
    return relative(moved, whole, outputs[0])


def _changes(layer: Layer, zeroed: Zeroed) -> dict[int, dict[ir.Value, ir.TensorProtocol]]:
    if layer.elimination is None:
        return {count: zeroed(layer, count) for count in layer.stops()}
    return {count: _fitted(layer, weights) for count, weights in layer.elimination.weights.items()}


def _fitted(layer: Layer, weights: Sequence[np.ndarray]) -> dict[ir.Value, ir.TensorProtocol]:
    changed: dict[ir.Value, ir.TensorProtocol] = {}
    for weight, fitted, mean in zip(layer.readers, weights, layer.means, strict=True):
        blocks, bias = Blocks.of(weight), bias_of(weight)
        dense = blocks.split(weight.array())[0]
        fitted = np.where(dense != 0, fitted, 0)
        changed[weight.value] = like(weight.tensor, blocks.join(fitted[None]))
        tensor = constant_tensor(bias)
        if bias is not None and tensor is not None:
            shift = (dense - fitted) @ mean
            changed[bias] = like(tensor, tensor.numpy() + shift.reshape(tensor.shape.numpy()))
    return changed


def like(tensor: ir.TensorProtocol, array: np.ndarray) -> ir.Tensor:
    """An array as a tensor of the type of another one."""
    return ir.Tensor(np.ascontiguousarray(array.astype(tensor.dtype.numpy())), dtype=tensor.dtype)

"""What channels may leave of the work of a model: of its multiply-adds, or of its latency on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.calibration.layer_times import time_layers
from onnxprune.data.batch import Batch
from onnxprune.errors import SettingError
from onnxprune.job.samples.inputs import JobData, sample_shapes
from onnxprune.model.costs import Product, products, weight_multiply_adds
from onnxprune.model.weights import Weight
from onnxprune.pruning.channel_costs import Budget, Cost, Group
from onnxprune.pruning.schedule import PruningStep
from onnxprune.surgery import UnitGroups
from onnxprune.surgery.axes import Axis


@dataclass(frozen=True)
class Work:
    """The work of a model, `total`, of which the fraction `share` is to be kept, and the `costs` that it is the sum of.

    `shapes`: of the weights or of the loops of products that the costs depend on, whole. `groups`: the positions of
    each group of channels in them.
    """

    share: float
    total: float
    costs: Sequence[Cost]
    shapes: Mapping[str, Sequence[int]]
    groups: Sequence[Group]

    def budget(self, step: PruningStep) -> Budget:
        """What may be left of the costs after a step."""
        share = 1 - step.rate(1 - self.share)
        fixed = self.total - sum(cost.at(self.shapes) for cost in self.costs)
        return Budget(share * self.total - fixed, self.costs, self.shapes, self.groups)


def multiply_add_work(
    model: ir.Model, groups: UnitGroups, weights: Sequence[Weight], data: JobData, share: float
) -> Work:
    """The multiply-adds of a model, of which channels may leave a share: products of computed values included.

    Raises:
        SettingError: those of the weights are not known.
    """
    found = products(model, sample_shapes(data.test))
    _check_known(weights, found, share)
    every = [product for counted in found.values() for product in counted]
    shrinking = {axis for along in groups.multiplied for axis in along}
    shapes: dict[str, tuple[int, ...]] = {}
    costs = []
    # The loops of products over an axis: their product, their place in its shape, and the positions that they run over.
    places: dict[tuple[ir.Value, int], list[tuple[str, int, int, int]]] = {}
    for number, product in enumerate(every):
        loops = [loop for loop in product.loops if loop.value and Axis(loop.value, loop.dim) in shrinking]
        if not loops or not product.runs:
            continue
        name = str(number)
        shapes[name] = tuple(loop.length for loop in loops)
        costs.append(Cost.linear(name, product.runs / math.prod(shapes[name])))
        for place, loop in enumerate(loops):
            assert loop.value is not None
            end = loop.start + loop.length
            places.setdefault(Axis(loop.value, loop.dim), []).append((name, place, loop.start, end))
    positions = [
        {
            (name, place): inside - start
            for axis, where in along.items()
            for name, place, start, end in places.get(axis, ())
            if len(inside := where[(where >= start) & (where < end)])
        }
        for along in groups.multiplied
    ]
    return Work(share, sum(product.runs for product in every), costs, shapes, positions)


def multiply_adds_of_weights(
    model: ir.Model, weights: Sequence[Weight], data: JobData, share: float
) -> dict[str, int]:
    """The multiply-adds of each weight, by name.

    Raises:
        SettingError: they are not known.
    """
    found = products(model, sample_shapes(data.test))
    _check_known(weights, found, share)
    return weight_multiply_adds(weights, found)


def _check_known(weights: Sequence[Weight], found: Mapping[ir.Node, Sequence[Product]], share: float) -> None:
    """Refuse a model of which the multiply-adds of no weight are known."""
    if weights and not any(weight_multiply_adds(weights, found).values()):
        raise SettingError(
            f"--flops {share:g}: the multiply-adds of the model are not known, since the shapes of what its weights "
            "are multiplied with do not follow from those of its inputs; give --rate instead, or export the model with "
            "fixed shapes"
        )


def latency_work(
    model: ir.Model, groups: UnitGroups, weights: Sequence[Weight], data: Batch, share: float
) -> Work:
    """The latency of the layers of a model, measured on this machine at several widths, of which a share may be left.

    Raises:
        DataError: onnxruntime cannot run the model layer by layer.
        SettingError: it runs none of the layers alone.
    """
    times = time_layers(model, weights, data)
    if weights and not times:
        raise SettingError(
            f"--latency {share:g}: onnxruntime runs no layer of the model alone, so that none can be timed; give "
            "--flops or --rate instead"
        )
    costs = [Cost.of_shape(name, time.at) for name, time in times.items()]
    shapes = {name: array.shape for name, array in groups.weights.items()}
    shapes |= {weight.name: weight.shape for weight in weights}
    return Work(share, sum(cost.at(shapes) for cost in costs), costs, shapes, groups.positions)

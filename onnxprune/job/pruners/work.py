"""What channels may leave of the work of a model: of its multiply-adds, or of its latency on this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.calibration.layer_times import time_layers
from onnxprune.data.batch import Batch
from onnxprune.errors import SettingError
from onnxprune.job.samples.inputs import JobData, sample_shapes
from onnxprune.model.costs import multiply_adds, weight_multiply_adds
from onnxprune.model.weights import Weight
from onnxprune.pruning.channel_costs import Budget, Cost
from onnxprune.pruning.schedule import PruningStep


@dataclass(frozen=True)
class Work:
    """The work of a model, `total`, of which the fraction `share` is to be kept.

    `costs`: of each weight, by name; `shapes`: of the whole weights.
    """

    share: float
    total: float
    costs: Mapping[str, Cost]
    shapes: Mapping[str, Sequence[int]]

    def budget(self, step: PruningStep, excluded: Collection[str]) -> Budget:
        """What may be left of the weights in `costs` after a step; those in `excluded` are left whatever is chosen."""
        share = 1 - step.rate(1 - self.share)
        costs = [cost for name, cost in self.costs.items() if name not in excluded]
        fixed = self.total - sum(cost.at(self.shapes) for cost in costs)
        return Budget(share * self.total - fixed, costs)


def multiply_add_work(
    model: ir.Model, weights: Sequence[Weight], data: JobData, share: float, total: int
) -> Work:
    """The multiply-adds of a model, `total`, of which channels may leave a share.

    Raises:
        SettingError: those of the weights are not known.
    """
    counts = multiply_adds_of_weights(model, weights, data, share)
    shapes = {weight.name: weight.shape for weight in weights}
    costs = {
        weight.name: Cost.linear(weight.name, counts[weight.name] / max(weight.size, 1)) for weight in weights
    }
    return Work(share, total, costs, shapes)


def multiply_adds_of_weights(
    model: ir.Model, weights: Sequence[Weight], data: JobData, share: float
) -> dict[str, int]:
    """The multiply-adds of each weight, by name.

    Raises:
        SettingError: they are not known.
    """
    costs = weight_multiply_adds(weights, multiply_adds(model, sample_shapes(data.test)))
    if weights and not any(costs.values()):
        raise SettingError(
            f"--flops {share:g}: the multiply-adds of the model are not known, since the shapes of what its weights "
            "are multiplied with do not follow from those of its inputs; give --rate instead, or export the model with "
            "fixed shapes"
        )
    return costs


def latency_work(model: ir.Model, weights: Sequence[Weight], data: Batch, share: float) -> Work:
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
    costs = {name: Cost.of_shape(name, time.at) for name, time in times.items()}
    shapes = {weight.name: weight.shape for weight in weights}
    return Work(share, sum(cost.at(shapes) for cost in costs.values()), costs, shapes)

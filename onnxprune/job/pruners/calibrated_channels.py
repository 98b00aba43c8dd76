"""Channels chosen and compensated on calibration inputs.

The channels of a layer go in the order of the error that the layers behind it cannot make up for, and each layer loses
so many that the outputs move least for what is saved. Then every layer is fitted, in the order of the graph, to what it
gave in the dense model, from what it reads now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.channel_scan import (
    Layer,
    deviation,
    fits,
    like,
    measure_channels,
    order_channels,
    readers_of,
)
from onnxprune.calibration.corrections import bias_of, correct_norm
from onnxprune.calibration.refit import HELD_OUT, norm_behind, refit, residual_of
from onnxprune.calibration.split import split
from onnxprune.calibration.walk import Visit, walk
from onnxprune.job.pruners.calibrated import Calibration
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constant_tensor, constants, put_tensor
from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.model.weights import Weight, constants_by_name, find_weights
from onnxprune.pruning.channel_allocation import Curve
from onnxprune.surgery import UnitGroups, zero_units

# Samples on which the outputs are measured without some channels of a layer.
SCAN_SAMPLES = 48


@dataclass(frozen=True)
class Findings:
    """The importance of each group, and by layer the deviation of the outputs by the number of channels gone.

    `readers`: by layer, how many weights read its channels and can be fitted.
    """

    importance: np.ndarray
    curves: Sequence[Curve]
    readers: Sequence[int]

    @property
    def by_norm(self) -> int:
        """The number of layers whose channels go in the order of their norms, for lack of a reader that is fitted."""
        return sum(not count for count in self.readers)

    def weighed(self, power: float) -> list[Curve]:
        """The curves, each times its number of readers to a power."""
        return [
            [(number, deviation * max(count, 1) ** power) for number, deviation in curve]
            for curve, count in zip(self.curves, self.readers, strict=True)
        ]


def study(
    calibration: Calibration,
    groups: UnitGroups,
    layers: Sequence[np.ndarray],
    norms: np.ndarray,
    *,
    greedy: bool,
    scan: bool,
) -> Findings:
    """Order the channels of each layer (indices of groups); `norms`: the importance of the others.

    `greedy`: by what their readers cannot make up for, not by their norms. `scan`: whether the outputs are
    measured as well.
    """
    model, config = calibration.model, calibration.config

    def most_of(members: np.ndarray) -> int:
        return int(config.max_channel_rate * len(members))

    weights = main_weights(model)
    found = [
        Layer(
            [groups.positions[index] for index in members],
            most_of(members),
            readers_of([groups.positions[members[0]]], weights),
        )
        for members in layers
    ]
    orders = [np.argsort(norms[members], kind="stable") for members in layers]
    # Samples that layers were fitted to would say that nothing is lost.
    fit, held = split(calibration.data, HELD_OUT, SCAN_SAMPLES)
    order_channels(
        model,
        fit if scan else calibration.data,
        found,
        config.seed,
        None if greedy else orders,
    )
    importance = norms.copy()
    for layer, members in zip(found, layers, strict=True):
        if layer.elimination is None:
            continue
        order, errors = layer.elimination.order, np.maximum.accumulate(layer.elimination.errors)
        importance[members] = 2 * errors.max(initial=np.finfo(np.float32).tiny)
        # Equal errors keep the order.
        importance[members[order]] = errors * (1 + 1e-9 * np.arange(len(order)))
    curves: list[Curve] = [()] * len(layers)
    if scan:
        members_of = {id(layer): members for layer, members in zip(found, layers, strict=True)}

        def zeroed(layer: Layer, count: int) -> dict[ir.Value, ir.TensorProtocol]:
            members = members_of[id(layer)]
            return _zeroed(model, groups, members[np.argsort(norms[members], kind="stable")[:count]])

        for number, curve in measure_channels(model, held or fit, found, zeroed):
            curves[number] = found[number].refined(curve)
    return Findings(importance, curves, [len(layer.readers) for layer in found])


def try_out(
    calibration: Calibration, groups: UnitGroups, choices: Sequence[np.ndarray], excluded: Collection[str]
) -> list[float]:
    """The deviation of the outputs without the groups of each choice, compensated; the model is as before."""
    model = calibration.model
    fit, held = split(calibration.data, HELD_OUT, SCAN_SAMPLES)
    trial = replace(calibration, data=fit, progress=lambda stage, fraction: None)
    values = constants_by_name(model)
    before = {value: tensor for value in constants(model) if (tensor := constant_tensor(value)) is not None}
    found = []
    for chosen in choices:
        masks = zero_units(model, groups, chosen)
        compensate(trial, {values[name]: mask for name, mask in masks.items()}, excluded)
        found.append(deviation(model, calibration.dense, held or fit))
        for value, tensor in before.items():
            put_tensor(value, tensor)
    return found


def _zeroed(model: ir.Model, groups: UnitGroups, chosen: np.ndarray) -> dict[ir.Value, ir.TensorProtocol]:
    """The constants that the removal of groups changes, as they would be."""
    values = constants_by_name(model)
    names = {name for index in chosen for name, _ in (*groups.positions[index], *groups.biases[index])}
    before = {values[name]: constant_tensor(values[name]) for name in names}
    zero_units(model, groups, chosen)
    after = {value: tensor for value in before if (tensor := constant_tensor(value)) is not None}
    for value, tensor in before.items():
        assert tensor is not None
        put_tensor(value, tensor)
    return after


def main_weights(model: ir.Model) -> list[Weight]:
    """The weights that nodes of the main graph read."""
    nodes = set(model.graph)
    return [weight for weight in find_weights(model).prunable if weight.uses[0].node in nodes]


def compensate(
    calibration: Calibration, masks: Mapping[ir.Value, np.ndarray], excluded: Collection[str]
) -> int:
    """Fit every layer, in place, to its outputs in the dense model, from the channels that are left.

    `masks`: of the constants, True = kept. Weights in `excluded` stay as they are. Returns the number of fitted layers.
    """
    model = calibration.model
    layers: dict[ir.Node, list[Weight]] = {}
    for weight in main_weights(model):
        if weight.name not in excluded and fits(weight):
            layers.setdefault(weight.uses[0].node, []).append(weight)
    norms = {node for node in model.graph if node.op_type == "BatchNormalization"}
    shapes, count = infer_shapes(model), 0
    nodes = layers.keys() | norms
    for place, visit in enumerate(walk(model, calibration.dense, calibration.data, nodes)):
        calibration.progress("prune", place / len(nodes))
        if visit.node in norms:
            correct_norm(visit, calibration.dense)
        for weight in layers.get(visit.node, ()):
            count += _refit(weight, masks, visit, calibration, residual_of(weight, shapes))
    return count


def _refit(
    weight: Weight,
    masks: Mapping[ir.Value, np.ndarray],
    visit: Visit,
    calibration: Calibration,
    residual: ir.Value | None,
) -> bool:
    """Fit one layer; returns whether there was anything to make up for. What was zero in the dense model stays so."""
    blocks, bias, mask = Blocks.of(weight), bias_of(weight), masks.get(weight.value)
    dense = blocks.split(calibration.dense[weight.value].numpy()).astype(np.float64)
    present = dense != 0
    kept = present if mask is None else present & blocks.split(mask)
    if np.array_equal(kept, present) and all(np.array_equal(*pair) for pair in visit.pairs(blocks.data)):
        return False
    found = refit(
        weight,
        dense,
        kept,
        visit,
        calibration.config.seed,
        centered=bias is not None or norm_behind(weight) is not None,
        residual=residual,
    )
    weight.assign(blocks.join(found.weights))
    if bias is not None:
        before = calibration.dense[bias]
        rows = np.where(kept.any(2), found.shift, 0).reshape(before.shape.numpy())
        # Norms count what is not zero in the channels of a residual stream.
        put_tensor(bias, like(before, (before.numpy() + rows) * masks.get(bias, True)))
    return True

"""One cut of a model: which of its weights go at a turn of the schedule, as masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import ModelFileError, NothingToPruneError
from onnxprune.job.calibrated import Calibration, cut_by_magnitude
from onnxprune.model.constants import constant_tensor
from onnxprune.model.weights import Weight, Weights, constants_by_name, find_weights
from onnxprune.pruning.allocation import Pool, allocate, excluded_weights
from onnxprune.pruning.channels import choose_channels
from onnxprune.pruning.masks import NonZero, apply_masks, make_masks
from onnxprune.pruning.rates import Curve
from onnxprune.pruning.schedule import Turn, layer_family
from onnxprune.surgery import unit_groups, zero_units

# Arrays of masks or scores by the model's own constants.
Arrays = dict[ir.Value, np.ndarray]


@dataclass(frozen=True)
class Cutter:
    """Zeroes what has to go from a model.

    `cut(turn, scores)` reads the model's weights as they stand, zeroes some in it, and returns the masks of what it
    decided on (bool, True = kept); `scores` stand for the weights' sizes where `--importance` asks for them.
    `weights` are those that it may cut one by one.
    """

    cut: Callable[[Turn, Arrays], Mapping[ir.Value, np.ndarray]]
    weights: tuple[Weight, ...]

    @property
    def families(self) -> tuple[str, ...]:
        """The kinds of layers that there are, in the order of the graph."""
        return tuple(dict.fromkeys(layer_family(weight.op_type) for weight in self.weights))

    def fixed(self, turn: Turn) -> set[ir.Value]:
        """The constants of the layers that are not retrained after a turn: those of other families than its own."""
        if turn.family is None:
            return set()
        nodes = [use.node for weight in self.weights for use in weight.uses]
        return {
            value
            for node in nodes
            if layer_family(node.op_type) != turn.family
            for value in node.inputs
            if value is not None and constant_tensor(value) is not None
        }


def usable_weights(model: ir.Model, name: str, config: PruneConfig) -> Weights:
    """The weights of a model that a job may cut, all of them finite.

    Raises:
        NothingToPruneError: there are none.
        ModelFileError: one holds NaN or infinity.
    """
    found = find_weights(model)
    # Channels also go from weights that are not cut one by one, those of an LSTM for one.
    asked = config.rate != 0
    if asked and not found.prunable and not (config.pattern == "channel" and unit_groups(model).cuts):
        reasons = "; ".join(f"{operand.weight}: {operand.reason}" for operand in found.unprunable[:3])
        reasons = reasons or "there is no Conv, Gemm or MatMul with a constant operand"
        raise NothingToPruneError(
            f"{name} has no weight that can be pruned ({reasons}): see `onnxprune inspect`"
        )
    for weight in found.prunable:
        if not np.isfinite(weight.numbers()).all():
            raise ModelFileError(
                f"weight {weight.name!r} of {name} holds NaN or infinity: export the model from a sound checkpoint"
            )
    return found


def make_cutter(
    model: ir.Model,
    weights: tuple[Weight, ...],
    config: PruneConfig,
    calibration: Calibration | None = None,
    curves: Mapping[str, Curve] | None = None,
    costs: Mapping[str, float] | None = None,
) -> Cutter:
    """What cuts a model as the settings ask.

    Where they ask for it, `calibration` knows what the layers read, `curves` what pruning each alone loses, and `costs`
    what each costs that is to be saved.

    Raises:
        SelectorError: a selector matches nothing.
        NothingToPruneError: every weight is excluded.
    """
    if config.pattern == "channel":
        spared = {weight.name for weight in excluded_weights(weights, config)}
        return Cutter(partial(_cut_channels, model, spared, config), ())
    pools = allocate(weights, config, curves, costs)
    return Cutter(
        partial(_cut_weights, pools, config, calibration),
        tuple(weight for pool in pools for weight in pool.weights),
    )


def _cut_weights(
    pools: list[Pool], config: PruneConfig, calibration: Calibration | None, turn: Turn, scores: Arrays
) -> Mapping[ir.Value, np.ndarray]:
    """Zero single weights or blocks of them.

    How many go from each layer is settled by magnitude, whatever the criterion that says which.
    """
    drawing = config.selection == "probability"
    random = np.random.default_rng([config.seed, turn.update]) if drawing else None
    cut = [
        weight
        for pool in pools
        for weight in pool.weights
        if turn.family in (None, layer_family(weight.op_type))
    ]
    at_once = calibration is None and config.pattern != "2:4"
    rates: dict[str, float] = {}
    for pool in turn.pools(pools):
        masks = make_masks([pool], random, blocks=config.pattern == "4x1")
        rates |= {name: 1 - np.count_nonzero(mask) / mask.size for name, mask in masks.items()}
        if at_once:
            apply_masks([weight for weight in pool.weights if weight in cut], masks)
        # Or the next pool's are made beside them.
        del masks
    if at_once:
        return NonZero(cut)
    if calibration is not None:
        return calibration.cut(tuple(cut), rates)
    return {weight.value: cut_by_magnitude(weight, rates[weight.name], config.pattern) for weight in cut}


def _cut_channels(
    model: ir.Model, spared: set[str], config: PruneConfig, turn: Turn, scores: Arrays
) -> Arrays:
    """Zero whole channels: the masks of weights and biases."""
    assert config.rate is not None
    values = constants_by_name(model)
    groups = unit_groups(model)
    choice = choose_channels(
        groups.cuts,
        groups.weights,
        turn.rate(config.rate),
        scope=config.scope,
        norm="l1" if config.importance == "l1" else "l2",
        round_to=config.round_to,
        min_channels=config.min_channels,
        exclude=spared,
        scores={name: scores.get(values[name], array) for name, array in groups.weights.items()},
    )
    masks = zero_units(model, groups, choice.chosen)
    return {values[name]: mask for name, mask in masks.items()}

"""The pruner of a job: which weights, blocks or channels are removed at a step of the schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxprune.config.declare import AUTO
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import ModelFileError, NothingToPruneError
from onnxprune.job.pruners.calibrated import Calibration, prune_by_magnitude
from onnxprune.job.pruners.channels import ChannelPruning
from onnxprune.job.pruners.timed import Clock
from onnxprune.job.pruners.work import Work
from onnxprune.job.requirements import is_calibrated
from onnxprune.model.weights import Weight, Weights, find_weights
from onnxprune.pruning.allocation import Pool, allocate, included
from onnxprune.pruning.blocks import BLOCK_PATTERNS, BlockPattern
from onnxprune.pruning.criteria import find_criterion, magnitude
from onnxprune.pruning.masks import NonZero, apply_masks, make_masks
from onnxprune.pruning.pruner import Arrays, Pruner
from onnxprune.pruning.rates import Curve
from onnxprune.pruning.schedule import PruningStep, layer_family
from onnxprune.surgery import UnitGroups, unit_groups


def usable_weights(model: ir.Model, name: str, config: PruneConfig) -> Weights:
    """The weights of a model that a job may prune.

    Raises:
        NothingToPruneError: there are none.
        SelectorError: an --include matches nothing.
        ModelFileError: one holds NaN or infinity.
    """
    found = included(find_weights(model), config.include)
    # Channels are also removed from weights that are not pruned one by one, for example those of an LSTM.
    asked = config.rate != 0
    if asked and not found.prunable and not (config.pattern == "channel" and unit_groups(model).positions):
        reasons = "; ".join(f"{operand.weight}: {operand.reason}" for operand in found.left[:3])
        reasons = reasons or "there is no Conv, Gemm or MatMul with a constant operand"
        raise NothingToPruneError(
            f"{name} has no weight that can be pruned ({reasons}): see `onnxprune inspect`"
        )
    for weight in found.prunable:
        if not np.isfinite(weight.numbers()).all():
            raise ModelFileError(
                f"weight {weight.name!r} of {name} holds NaN or infinity: export the model from a valid checkpoint"
            )
    return found


def make_pruner(
    model: ir.Model,
    weights: tuple[Weight, ...],
    config: PruneConfig,
    calibration: Calibration | None = None,
    curves: Mapping[str, Curve] | None = None,
    costs: Mapping[str, float] | None = None,
    work: Work | None = None,
    groups: UnitGroups | None = None,
    clock: Clock | None = None,
    *,
    trained: bool = True,
) -> Pruner:
    """The pruner for the settings.

    `calibration`: the inputs of the layers, for settings that need them. `curves`: the sensitivity of each weight.
    `costs`: the cost of each weight that the rate is a fraction of; by default its number of elements. `work`: what
    channels may leave of the multiply-adds or of the latency, which `clock` times. `groups`: of the model, where they
    are known. `trained`: whether a training follows.

    Raises:
        SelectorError: a selector matches nothing.
        NothingToPruneError: every weight is excluded.
    """
    needs = find_criterion(config.criterion).needs
    if config.pattern == "channel":
        groups = unit_groups(model) if groups is None else groups
        channels = ChannelPruning(model, weights, config, groups, calibration, work, clock, trained=trained)
        return Pruner(channels.prune, (), needs, is_calibrated(config), channels.notes)
    pools = allocate(weights, config, curves, costs)
    return Pruner(
        partial(_prune_weights, pools, config, calibration),
        tuple(weight for pool in pools for weight in pool.weights),
        needs,
        is_calibrated(config),
        tuple if calibration is None else lambda: calibration.notes,
    )


def _prune_weights(
    pools: list[Pool],
    config: PruneConfig,
    calibration: Calibration | None,
    step: PruningStep,
    gradients: Arrays,
) -> Arrays:
    """Zero single weights or blocks of them.

    If the criterion needs inputs, the magnitude decides how many are removed from each layer.
    """
    draws = config.selection == "probability"
    random = np.random.default_rng([config.seed, step.update]) if draws else None
    pruned = [
        weight
        for pool in pools
        for weight in pool.weights
        if step.family in (None, layer_family(weight.op_type))
    ]
    directly = calibration is None and config.pattern != "2:4"
    rates: dict[str, float] = {}
    for pool in step.pools(pools):
        blocks = BLOCK_PATTERNS.get(config.pattern)
        masks = make_masks([pool], random, blocks=blocks, score=_weight_score(config, gradients))
        if not directly:
            rates |= {
                weight.name: removed_share(weight, masks[weight.name], blocks) for weight in pool.weights
            }
        if directly:
            apply_masks([weight for weight in pool.weights if weight in pruned], masks)
        # Otherwise they would be in memory beside those of the next pool.
        del masks
    if directly:
        return NonZero(pruned)
    if calibration is not None:
        return calibration.prune(tuple(pruned), rates)
    return {weight.value: prune_by_magnitude(weight, rates[weight.name], config.pattern) for weight in pruned}


def removed_share(weight: Weight, mask: np.ndarray, blocks: BlockPattern | None) -> float:
    """The fraction of a mask's elements that it removes; of its blocks, where it is of blocks."""
    kept = mask if blocks is None else blocks.norms(weight, mask)
    return 1 - np.count_nonzero(kept) / kept.size


def _weight_score(config: PruneConfig, gradients: Arrays) -> Callable[[Weight], np.ndarray]:
    """The importance of a weight's elements; without a gradient the loss does not depend on the weight.

    What is measured on inputs is scored layer by layer (`Calibration`): here magnitude says how many go from each.
    """
    criterion = find_criterion(config.criterion)
    # Magnitude itself has a version that takes less memory.
    if criterion.needs == "inputs" or config.criterion in (AUTO, "magnitude"):
        return magnitude

    def score(weight: Weight) -> np.ndarray:
        numbers = weight.numbers()
        if criterion.needs == "weights":
            return criterion.score(numbers, numbers)
        return criterion.score(numbers, gradients.get(weight.value, np.zeros_like(numbers)))

    return score

"""Measurements before pruning: sensitivities, calibration, and the rate that reaches --flops or --bytes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.sensitivity import measure
from onnxprune.calibration.unseen import constants_of, unseen
from onnxprune.calibration.walk import affordable
from onnxprune.config.declare import settled
from onnxprune.config.settings import PruneConfig
from onnxprune.job.choices.size_search import rate_of_bytes
from onnxprune.job.pruners.blockwise import BATCH, NO_LIMITS, Limits
from onnxprune.job.pruners.calibrated import Calibration
from onnxprune.job.pruners.pruner import make_pruner
from onnxprune.job.pruners.timed import Clock
from onnxprune.job.pruners.work import Work, latency_work, multiply_add_work, multiply_adds_of_weights
from onnxprune.job.requirements import is_calibrated
from onnxprune.job.samples.inputs import JobData, sample_shapes
from onnxprune.model.blocks import Blocks
from onnxprune.model.costs import multiply_adds
from onnxprune.model.weights import Weight
from onnxprune.pruning.allocation import excluded_weights
from onnxprune.pruning.budget import budget_of_multiply_adds, within_budget
from onnxprune.pruning.criteria import find_criterion
from onnxprune.pruning.layerwise import second_order_work
from onnxprune.pruning.pruner import Pruner
from onnxprune.pruning.sensitivity import Measure, rates_to_scan, scan
from onnxprune.reports.record import FileRecord
from onnxprune.surgery import UnitGroups, unit_groups
from onnxprune.system.processes import process_count
from onnxprune.system.progress import Progress, StageProgress

# Enough to rank the layers; each rate of each weight is a run on all samples.
SENSITIVITY_SAMPLES = 128
FEWEST_SAMPLES = 16
# Multiply-adds of all runs, and of pruning each layer at several rates: one or two minutes each.
SENSITIVITY_WORK = 2e12
FITTING_WORK = 4e12
FEWEST_RATES = 3
# Each of the two takes at most this part of the time that is left, at so many multiply-adds a second.
MEASURING, SPEED = 0.15, 1e10
# Where layers are pruned anew for each rate, only every so many-th is measured.
FITTED_EVERY = 2
UNKNOWN_RATE = 0.98

Curves = dict[str, list[tuple[float, float]]]
"""(rate, deviation) of every weight, by its name."""


@dataclass(frozen=True)
class Plan:
    """The pruner of a job, the sensitivity curves behind it, and the weights pruned by magnitude for lack of inputs."""

    pruner: Pruner
    curves: Curves | None
    by_magnitude: tuple[str, ...]


def make_plan(
    model: ir.Model,
    weights: tuple[Weight, ...],
    data: JobData,
    config: PruneConfig,
    dense: FileRecord,
    progress: Progress = lambda fraction: None,
    deadline: float | None = None,
    groups: UnitGroups | None = None,
    work: Work | None = None,
    pruning: StageProgress = lambda stage, fraction: None,
    *,
    timed: bool = True,
) -> Plan:
    """Measure what the settings ask for, and make the pruner; `dense`: the record of the input model.

    `deadline`: of a training that follows, by `time.monotonic()`. `groups` and `work`: of channels, where they are
    known. `timed`: whether what --latency leaves is timed as a whole, and not only by its layers.
    `pruning`: called later, while the pruner prunes, with the name of a stage and the fraction of it that is done.

    Raises:
        SettingError: no rate reaches --flops or --bytes.
        SelectorError: a selector matches nothing.
        NothingToPruneError: every weight is excluded.
    """
    calibration = None
    scans_channels = config.pattern == "channel" and config.allocation == "sensitivity"
    if (is_calibrated(config) or scans_channels) and data.calibration is not None:
        excluded = excluded_weights(weights, config)
        limits = _limits(config, data, deadline)
        calibration = Calibration.of(model, data.calibration, config, excluded, limits, pruning)
    curves = sensitivity_curves(model, weights, data, config, calibration, progress, deadline)
    costs: dict[str, int] = {}
    clock = None
    if config.pattern == "channel":
        groups = unit_groups(model) if groups is None else groups
        work = channel_work(model, groups, weights, data, config) if work is None else work
        if config.latency is not None and timed:
            clock = Clock(model, groups, data.a_run())
    elif config.flops is not None:
        costs = multiply_adds_of_weights(model, weights, data, config.flops)
        budget = budget_of_multiply_adds(weights, config.flops, costs, dense.multiply_adds)
        config = within_budget(weights, config, budget, curves, costs)
    elif config.bytes is not None:
        config = replace(config, rate=rate_of_bytes(model, weights, config, curves, dense.bytes), bytes=None)
    trained = data.training is not None
    pruner = make_pruner(
        model, weights, config, calibration, curves, costs or None, work, groups, clock, trained=trained
    )
    if calibration is not None and data.training is not None:
        few = unseen(model, weights, len(data.training))
        pruner = replace(pruner, untrained=constants_of(few))
    uncalibrated = [] if calibration is None else calibration.uncalibrated(pruner.weights)
    return Plan(pruner, curves, tuple(weight.name for weight in uncalibrated))


def channel_work(
    model: ir.Model,
    groups: UnitGroups,
    weights: tuple[Weight, ...],
    data: JobData,
    config: PruneConfig,
) -> Work | None:
    """What channels may leave of the multiply-adds or of the latency; None where the rate says how many go.

    Raises:
        SettingError: the multiply-adds of the weights are not known, or no layer can be timed.
        DataError: onnxruntime cannot run the model layer by layer.
    """
    if config.flops is not None:
        return multiply_add_work(model, groups, weights, data, config.flops)
    if config.latency is not None:
        return latency_work(model, groups, weights, data.a_run(), config.latency)
    return None


def _limits(config: PruneConfig, data: JobData, deadline: float | None) -> Limits:
    """How much is reconstructed before a training: at most what that passes over."""
    if data.training is None:
        return NO_LIMITS
    # By the clock, several processes would come to different weights.
    if process_count() > 1:
        return Limits(0)
    updates = settled(config.epochs) * len(data.training) / BATCH
    return Limits(updates, deadline)


def sensitivity_curves(
    model: ir.Model,
    weights: tuple[Weight, ...],
    data: JobData,
    config: PruneConfig,
    calibration: Calibration | None,
    progress: Progress,
    deadline: float | None = None,
) -> Curves | None:
    """How far pruning one weight at a time moves the outputs; None unless the allocation is by sensitivity."""
    if config.allocation != "sensitivity" or data.calibration is None or config.pattern == "channel":
        return None
    # With --flops or --bytes the rate is not known yet.
    rates = rates_to_scan(UNKNOWN_RATE if config.rate is None else config.rate)
    # How much a layer can lose depends on how it is pruned.
    fitting = None if find_criterion(config.criterion).solve is None else calibration
    if fitting is not None:
        rates = _rates_within(_in_time(FITTING_WORK, deadline), weights, rates[::-FITTED_EVERY][::-1])
    work = _in_time(SENSITIVITY_WORK, deadline)
    samples = affordable(model, data.calibration, _samples_within(work, model, weights, len(rates), data))
    if fitting is not None and fitting.held is not None:
        # Layers lose less on what they were fitted to.
        places = np.linspace(0, len(fitting.held) - 1, min(samples, len(fitting.held)))
        some = fitting.held.take(places.astype(int))
    else:
        # Not the first ones, which in a folder are of one class.
        some = data.calibration.spread(samples).read()
    measured: Measure = partial(measure, model, some)
    if fitting is not None:
        fitted = fitting.pruned_alone(weights, rates)
        measured = lambda some_weights, by_magnitude: measure(model, some, some_weights, fitted)  # noqa: E731
    curves: Curves = {}
    for found in scan(weights, measured, rates, {}, None):
        curves = {name: found.curve(name) for name in found.layers}
        progress(len(curves) / len(weights))
    # What moves no output at any rate is reached by no sample, like a branch that is not taken: nothing is known of it.
    return {name: curve for name, curve in curves.items() if any(loss for _, loss in curve)}


def _in_time(work: float, deadline: float | None) -> float:
    """The work, or as much of it as is done in a part of the time that is left."""
    # By the clock, several processes would come to different weights.
    if deadline is None or process_count() > 1:
        return work
    return min(work, MEASURING * SPEED * max(deadline - time.monotonic(), 0.0))


def _rates_within(work: float, weights: tuple[Weight, ...], rates: tuple[float, ...]) -> tuple[float, ...]:
    """As many of the rates, evenly spread with the highest, as every layer can be pruned at with this work."""

    def needed(count: int) -> int:
        return sum(second_order_work(Blocks.of(each).shape, count) for each in weights if Blocks.fit(each))

    count = len(rates)
    while count > FEWEST_RATES and needed(count) > work:
        count -= 1
    return tuple(rates[place] for place in np.linspace(len(rates) - 1, 0, count).round().astype(int)[::-1])


def _samples_within(
    work: float, model: ir.Model, weights: tuple[Weight, ...], rates: int, data: JobData
) -> int:
    """The samples on which every weight can be measured at every rate with so many multiply-adds."""
    a_run = sum(multiply_adds(model, sample_shapes(data.test)).values())
    # A run starts at its weight: on average, at the middle of the model.
    runs = max(1, len(weights) * rates * a_run // 2)
    return int(min(SENSITIVITY_SAMPLES, max(FEWEST_SAMPLES, work // runs)))

"""Rehearsals: short trainings of a pruned copy of the model that choose what no rule can know.

Every candidate starts from the input model, is pruned to the rate of the job on its schedule, and is trained on the
same few batches. What counts is the loss on validation data at the end. Pruned at once, candidates would be ranked by
how fast they recover: LeNet-5 at 12x would seem best by ERK, and is by one threshold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.config.declare import settled
from onnxprune.config.settings import PruneConfig
from onnxprune.job.defaults import is_open
from onnxprune.job.fine_tune import prune_and_fine_tune
from onnxprune.job.inputs import JobData
from onnxprune.job.measure import make_plan
from onnxprune.job.pruner import usable_weights
from onnxprune.job.requirements import is_calibrated
from onnxprune.reports.record import FileRecord
from onnxprune.system.processes import process_count

# Updates of a rehearsal: as many as take so many multiply-adds, within these limits; all rehearsals together take at
# most this share of the training's updates, and say nothing with fewer than `TOO_FEW` each.
WORK = 2.5e11
FEWEST_UPDATES, MOST_UPDATES = 48, 300
SHARE, TOO_FEW = 0.1, 8
VALIDATION_SAMPLES = 1_000
# The rate at which a search, whose rate is not known, rehearses.
SEARCH_RATE = 0.9
ALLOCATIONS = {"channel": ("uniform", "global"), "2:4": ("uniform",)}
# From the best in long trainings on. Short ones favor what hurts less at once: the first counts whose loss is at most
# so many times the least.
ALLOCATION_TOLERANCE = 1.25
WEIGHT_ALLOCATIONS = ("global", "erk", "uniform")
LEARNING_RATES = {
    "sgd": (0.01, 0.03, 0.1),
    "adam": (1e-4, 3e-4, 1e-3, 3e-3),
    "adamw": (1e-4, 3e-4, 1e-3, 3e-3),
}
# That at which allocations are compared.
MIDDLE = {"sgd": 0.03, "adam": 1e-3, "adamw": 1e-3}
# A short training favors small rates: the largest one counts whose loss is at most so many times the least.
TOLERANCE = 1.15


class Rehearsal:
    """The short trainings of a job, of `updates` updates each; `dense`: the record of the input model."""

    def __init__(
        self,
        model: ir.Model,
        name: str,
        data: JobData,
        config: PruneConfig,
        dense: FileRecord,
        updates: int,
    ):
        assert data.training is not None and data.validation is not None
        self._model = model
        self._name = name
        self._dense = dense
        size = config.batch_size or 1
        count = min(updates * size, len(data.training))
        order = np.random.default_rng(config.seed).permutation(len(data.training))
        self._data = replace(
            data,
            training=data.training.take(np.sort(order[:count])),
            validation=data.validation.spread(VALIDATION_SAMPLES),
        )
        self._epochs = max(1, round(updates / max(1, count // size)))

    def run(self, config: PruneConfig) -> float:
        """Prune and train a copy by these settings; returns the loss on validation data."""
        config = replace(
            config,
            epochs=self._epochs,
            warmup=0,
            rate=SEARCH_RATE if config.searches else config.rate,
            max_drop=None,
            max_loss=None,
            frontier=None,
            checkpoint=None,
            resume=False,
            time=None,
        )
        model = self._model.clone()
        weights = usable_weights(model, self._name, config)
        plan = make_plan(model, weights.prunable, self._data, config, self._dense)
        trained = prune_and_fine_tune(model, plan.pruner, self._data, config, lambda fraction: None)
        loss = trained.epochs[-1]["loss"]
        return loss if math.isfinite(loss) else math.inf


def _updates(config: PruneConfig, data: JobData, dense: FileRecord, count: int) -> int:
    """The updates of each of `count` rehearsals."""
    assert data.training is not None
    size = config.batch_size or 1
    work = size * max(dense.multiply_adds, dense.parameters, 1)
    of_training = settled(config.epochs) * max(1, len(data.training) // size)
    wanted = min(max(WORK / work, FEWEST_UPDATES), MOST_UPDATES)
    return int(min(wanted, SHARE * of_training / count))


def rehearsed(
    model: ir.Model,
    name: str,
    data: JobData,
    config: PruneConfig,
    dense: FileRecord,
    progress: Callable[[float], None],
    deadline: float | None = None,
) -> PruneConfig:
    """The settings, with the allocation and the learning rate that did best in rehearsals, where they are open.

    `deadline`: by `time.monotonic()`; what could not be tried by then is not chosen, and rates are middling ones.
    """
    for setting, value in _untried(config, data):
        config = replace(config, **{setting: value})
    candidates = _candidates(config)
    for setting in [setting for setting, values in candidates.items() if len(values) == 1]:
        config = replace(config, **{setting: candidates.pop(setting)[0]})
    if not candidates:
        return config
    count, done = sum(len(values) for values in candidates.values()), 0
    updates = _updates(config, data, dense, count)
    if updates < TOO_FEW:
        return replace(config, **{setting: FALLBACKS[setting](config) for setting in candidates})
    rehearsal = Rehearsal(model, name, data, config, dense, updates)
    for setting, values in candidates.items():
        losses: dict[Any, float] = {}
        for value in values:
            if losses and deadline is not None and time.monotonic() > deadline:
                break
            tried = replace(config, **{setting: value})
            if tried.learning_rate is None:
                tried = replace(tried, learning_rate=MIDDLE[config.optimizer])
            losses[value] = rehearsal.run(tried)
            done += 1
            progress(done / count)
        choice = CHOICES[setting](losses) if len(losses) == len(values) else FALLBACKS[setting](config)
        config = replace(config, **{setting: choice})
    return config


def _untried(config: PruneConfig, data: JobData) -> Iterator[tuple[str, Any]]:
    """What is chosen without a rehearsal: one would read a whole stream, or repeat a slow calibration.

    Processes of torchrun can join only once.
    """
    assert data.training is not None
    streamed = data.training.source.sequential or process_count() > 1
    if is_open(config, "allocation") and (
        streamed
        or config.rate == 0
        or is_calibrated(config)
        or config.std_threshold is not None
        or config.pattern == "2:4"
    ):
        yield "allocation", "uniform"
    if is_open(config, "learning_rate") and streamed:
        yield "learning_rate", MIDDLE[config.optimizer]


def _candidates(config: PruneConfig) -> dict[str, tuple]:
    found: dict[str, tuple] = {}
    if is_open(config, "allocation"):
        found["allocation"] = ALLOCATIONS.get(config.pattern, WEIGHT_ALLOCATIONS)
    if is_open(config, "learning_rate"):
        found["learning_rate"] = LEARNING_RATES[config.optimizer]
    return found


def _first_good(losses: dict[str, float]) -> str:
    good = ALLOCATION_TOLERANCE * min(losses.values())
    return next(value for value, loss in losses.items() if loss <= good)


def _largest_good(losses: dict[float, float]) -> float:
    good = TOLERANCE * min(losses.values())
    return max(value for value, loss in losses.items() if loss <= good)


# Without time for all candidates.
FALLBACKS: dict[str, Callable] = {
    "allocation": lambda config: ALLOCATIONS.get(config.pattern, WEIGHT_ALLOCATIONS)[0],
    "learning_rate": lambda config: MIDDLE[config.optimizer],
}
CHOICES: dict[str, Callable] = {"allocation": _first_good, "learning_rate": _largest_good}

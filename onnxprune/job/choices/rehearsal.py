"""Rehearsals: short trainings of a pruned copy of the model that choose what no rule can know.

Every candidate starts from the input model, is pruned to the rate of the job on its schedule, and is trained on the
same few batches. What counts is the loss on validation data at the end. Pruned at once, candidates would be ranked by
how fast they recover: LeNet-5 at 12x would seem best by ERK, and is by one threshold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.config.declare import settled
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import NotFiniteError
from onnxprune.job.choices.defaults import is_open, untried_allocation, untried_learning_rate
from onnxprune.job.fine_tune import prune_and_fine_tune
from onnxprune.job.measure import make_plan
from onnxprune.job.pruners.pruner import usable_weights
from onnxprune.job.pruners.work import Work
from onnxprune.job.requirements import is_calibrated
from onnxprune.job.samples.inputs import JobData
from onnxprune.reports.record import FileRecord
from onnxprune.system.processes import process_count
from onnxprune.system.progress import Progress, part_of

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
        work: Work | None,
        updates: int,
    ):
        assert data.training is not None and data.validation is not None
        self._model = model
        self._name = name
        self._dense = dense
        self._work = work
        size = config.batch_size or 1
        count = min(updates * size, len(data.training))
        order = np.random.default_rng(config.seed).permutation(len(data.training))
        self._data = replace(
            data,
            training=data.training.take(np.sort(order[:count])),
            validation=data.validation.spread(VALIDATION_SAMPLES),
        )
        self._an_epoch = max(1, count // size)
        self._epochs = max(1, round(updates / self._an_epoch))

    def run(self, config: PruneConfig, progress: Progress, deadline: float | None = None) -> float:
        """Prune and train a copy by these settings, by the deadline; returns the loss on validation data.

        NaN: the deadline left too few updates.
        """
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
        plan = make_plan(
            model, weights.prunable, self._data, config, self._dense, work=self._work, timed=False
        )
        try:
            tuned = prune_and_fine_tune(model, plan.pruner, self._data, config, progress, deadline=deadline)
        except NotFiniteError:
            return math.inf
        if tuned.diverged:
            return math.inf
        last = tuned.epochs[-1]
        if round(last["epoch"] * self._an_epoch) < TOO_FEW:
            return math.nan
        loss = last["loss"]
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
    work: Work | None,
    progress: Progress,
    deadline: float | None = None,
) -> PruneConfig:
    """The settings, with the allocation and the learning rate that did best in rehearsals, where they are open.

    `work`: that of channels, if it is known. `deadline`: by `time.monotonic()`, when the last rehearsal has to be
    finished; each gets an equal part of the time left. Where that is too little for one, all that is open is chosen
    without.
    """
    assert data.training is not None
    samples = len(data.training)
    for setting, value in _untried(model, name, config, data):
        config = replace(config, **{setting: value})
    candidates = _candidates(config)
    for setting in [setting for setting, values in candidates.items() if len(values) == 1]:
        config = replace(config, **{setting: candidates.pop(setting)[0]})
    if not candidates:
        return config
    count, done = sum(len(values) for values in candidates.values()), 0
    updates = _updates(config, data, dense, count)
    if updates < TOO_FEW:
        return _unrehearsed(config, candidates, samples)
    rehearsal = Rehearsal(model, name, data, config, dense, work, updates)
    for setting, values in candidates.items():
        losses: dict[Any, float] = {}
        for value in values:
            tried = replace(config, **{setting: value})
            if tried.learning_rate is None:
                tried = replace(tried, learning_rate=untried_learning_rate(config, samples))
            advance = part_of(progress, done / count, 1 / count)
            losses[value] = rehearsal.run(tried, advance, _part_of(deadline, count - done))
            if math.isnan(losses[value]):
                return _unrehearsed(config, candidates, samples)
            done += 1
            # One that diverged ended early.
            progress(done / count)
        config = replace(config, **{setting: CHOICES[setting](losses)})
    return config


def _part_of(deadline: float | None, rehearsals: int) -> float | None:
    """The deadline of the next of so many rehearsals."""
    if deadline is None:
        return None
    now = time.monotonic()
    return now + (deadline - now) / rehearsals


def _unrehearsed(config: PruneConfig, open_settings: Iterable[str], samples: int) -> PruneConfig:
    """The settings, those of `open_settings` still open chosen without a rehearsal."""
    chosen = {name: FALLBACKS[name](config, samples) for name in open_settings if is_open(config, name)}
    return replace(config, **chosen)


def _untried(model: ir.Model, name: str, config: PruneConfig, data: JobData) -> Iterator[tuple[str, Any]]:
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
        # On average, a session begins at the middle of the model.
        scanned = len(usable_weights(model, name, config).prunable) * len(model.graph) // 2
        yield "allocation", untried_allocation(config, scanned)
    fitted = is_calibrated(config) and config.schedule == "one-shot"
    if is_open(config, "learning_rate") and (streamed or fitted):
        yield "learning_rate", untried_learning_rate(config, len(data.training))


def _candidates(config: PruneConfig) -> dict[str, tuple]:
    found: dict[str, tuple] = {}
    if is_open(config, "allocation"):
        found["allocation"] = ALLOCATIONS.get(config.pattern, WEIGHT_ALLOCATIONS)
    if is_open(config, "learning_rate"):
        found["learning_rate"] = LEARNING_RATES[config.optimizer]
    return found


def _first_good(losses: dict[str, float]) -> str:
    good = _tolerated(losses.values(), ALLOCATION_TOLERANCE)
    return next(value for value, loss in losses.items() if loss <= good)


def _largest_good(losses: dict[float, float]) -> float:
    if math.isinf(min(losses.values())):
        return min(losses)
    good = _tolerated(losses.values(), TOLERANCE)
    return max(value for value, loss in losses.items() if loss <= good)


def _tolerated(losses: Iterable[float], tolerance: float) -> float:
    """The largest loss that is nearly as good as the least, which may be negative where the loss is a user's."""
    least = min(losses)
    return least + (tolerance - 1) * abs(least)


# Without a rehearsal.
FALLBACKS: dict[str, Callable] = {
    "allocation": lambda config, samples: untried_allocation(config),
    "learning_rate": untried_learning_rate,
}
CHOICES: dict[str, Callable] = {"allocation": _first_good, "learning_rate": _largest_good}

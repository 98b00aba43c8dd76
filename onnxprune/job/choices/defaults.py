"""Settings that the job chooses where the user gives none: one rule for each, by the model, the data and the machine.

What a rule cannot know is tried in short trainings, see job/choices/rehearsal.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from onnxprune.config.declare import AUTO, settled
from onnxprune.config.settings import PruneConfig, flag_of
from onnxprune.data.dataset import Dataset
from onnxprune.data.images.augment import NONE
from onnxprune.data.ragged import is_ragged
from onnxprune.evaluation.labels import label_forms
from onnxprune.job.requirements import is_calibrated
from onnxprune.job.samples.inputs import JobData
from onnxprune.training.module.norms import restored_norms

BATCH, SMALLEST_BATCH = 128, 16
# Samples that show whether sizes differ.
SEEN = 8
# A batch is halved until an epoch has so many updates.
FEWEST_UPDATES = 32
EPOCHS, MOST_EPOCHS = 20, 100
# Small data is passed over more often, until so many updates are made.
ENOUGH_UPDATES = 4_000
# Statistics of BatchNormalization need so many samples, and so large batches.
NORM_SAMPLES, NORM_BATCH = 1_000, 16
# With fewer weights left, a network has no capacity for mixtures.
MIXUP_RATE = 0.95
# Multiply-adds a sample from which the conversion to bfloat16 pays.
BFLOAT16_WORK = 10_000_000
WARMUP, WARMUP_SHARE = 100, 0.1
WEIGHT_DECAY = 1e-4
UNTRIED_ALLOCATION = "erk"
UNTRIED_FITTED_ALLOCATION = "sensitivity"
# Each weight is measured by sessions of the nodes behind it: these grow with the square of the depth, and so many nodes
# in all take half a minute, whatever they compute.
MOST_SCANNED = 200_000
# Without labels, layers are fitted to their inputs before the training where there are fewer samples, or the rate is at
# most this. At 80 %, paraphrase-MiniLM-L3 has a Spearman correlation of 0.82 so after 12 minutes, and 0.76 after 15 by
# magnitude while it trains (0.824 dense); ResNet-20 has 9.75 and 10.15 % error after 8 (8.69 % dense). Beyond, pruning
# while training is ahead: LeNet-300-100 at 95 % has 2.03 and 1.55 % error (1.64 % dense).
FEW_SAMPLES = 1_000
MODERATE_RATE = 0.8
# The learning rates without a rehearsal, and the part of one for weights that were fitted before the training. For few
# samples: MobileNetV2 at half of its weights, fitted to 200 images without labels, is 0.295 (divergence of the classes,
# 100 other images) from the dense one; after 24 updates of 16 images at 1e-4 it is 0.328, at 3e-5 0.243. By magnitude,
# at 1e-3, 92.8 % of its classes are wrong.
UNTRIED_LEARNING_RATES = {"sgd": 0.03, "adam": 1e-3, "adamw": 1e-3}
FITTED, FITTED_FEW = 1 / 3, 0.03
# onnxruntime computes convolutions in blocks of 8 channels (AVX2) or 16 (AVX-512), which it fills up, where counts are
# multiples of 4, and as a product of matrices where they are not. With half of the multiply-adds MobileNetV2 is 0.97x
# as fast where layers keep any number of channels, 1.30x at multiples of 4, 1.49x at 8 and 1.52x at 16; ResNet-20 is
# 1.19x, 1.18x and 1.55x, and has too few channels for 16 (AVX-512, one thread, --allocation uniform). Products of
# matrices alone gain nothing: layers of 233 neurons take the time of 240.
ROUNDINGS = (8, 4)


@dataclass(frozen=True)
class Facts:
    """What the rules look at.

    `samples`: for training; `labeled`: with labels that a loss can be of; `norms`: whether there is BatchNormalization,
    put back or the model's own; `work`: multiply-adds a sample, or where they are not
    known, parameters; `run`: how many samples the model is run on at a time, where that is not the batch; `streamed`:
    whether the data can only be read in order.
    """

    samples: int
    labeled: bool
    norms: bool
    work: int
    run: int | None
    streamed: bool = False

    @classmethod
    def of(cls, model: ir.Model, data: JobData, work: int) -> Facts:
        """Those of a job with training data."""
        assert data.training is not None
        forms = label_forms(data.training)
        own = any(node.op_type == "BatchNormalization" for node in model.graph)
        return cls(
            len(data.training),
            any(form.trains for form in forms.values()),
            own or bool(restored_norms(model)),
            work,
            run_of(data.training),
            data.training.source.sequential,
        )


def run_of(data: Dataset) -> int | None:
    """How many samples the model is run on at a time: what it fixes, one where sizes differ; None: any number."""
    if data.run_axes.size is not None:
        return data.run_axes.size
    some = data.take(slice(0, SEEN)) if data.source.sequential else data.spread(SEEN)
    return 1 if any(map(is_ragged, some.read().inputs.values())) else None


def batch_size(config: PruneConfig, samples: int) -> int:
    """The number of samples of an update."""
    if config.batch_size is not None:
        return config.batch_size
    size = BATCH
    while size > SMALLEST_BATCH and samples // size < FEWEST_UPDATES:
        size //= 2
    return size


def run_size(config: PruneConfig, samples: int, run: int | None) -> int:
    """The number of samples that statistics of a batch are of."""
    return min(batch_size(config, samples), samples) if run is None else run


def _an_epoch(config: PruneConfig, facts: Facts) -> int:
    """The updates of an epoch."""
    return max(1, facts.samples // batch_size(config, facts.samples))


def _criterion(config: PruneConfig, facts: Facts | None) -> str:
    """Second-order where layers are fitted to their inputs before the training.

    For channels always: whole ones are a loss that a training needs long to make up for. For single weights where
    outputs are all that is followed: a few inputs are too few to train the network anew, and up to a moderate rate
    fitted layers are where a training would end.
    """
    fits = (
        (bool(config.rate) or (config.pattern == "channel" and config.kept_work is not None))
        and config.selection == "threshold"
        and config.schedule in (AUTO, "one-shot", "iterative")
        and not config.alternate
    )
    if facts is None:
        gives = config.calibration_data is not None
    else:
        few = not facts.labeled and facts.samples < FEW_SAMPLES
        gives = not facts.streamed and (
            few or _follows_moderately(config, facts) or config.pattern == "channel"
        )
    return "second-order" if fits and gives else "magnitude"


def _follows_moderately(config: PruneConfig, facts: Facts) -> bool:
    """Whether outputs are all that is followed, at a rate at which fitted layers do that."""
    return not facts.labeled and config.rate is not None and config.rate <= MODERATE_RATE


def _fits_layers(config: PruneConfig, facts: Facts | None) -> bool | None:
    """Where weights are chosen by what layers read, those that remain are fitted to it as well."""
    return True if config.criterion == "second-order" else None


def _schedule(config: PruneConfig, facts: Facts | None) -> str:
    once = config.pattern == "channel"
    if facts is not None:
        once |= facts.samples < FEW_SAMPLES or _follows_moderately(config, facts)
    if is_calibrated(config) and once:
        return "one-shot"
    # Each step of these is slow, or each step's result is trained for long.
    rewinds = config.learning_rate_schedule == "rewind"
    few = is_calibrated(config) or config.alternate or config.pattern == "2:4" or rewinds
    return "iterative" if few or config.selection == "probability" else "gradual"


def _epochs(config: PruneConfig, facts: Facts) -> int:
    return min(max(EPOCHS, math.ceil(ENOUGH_UPDATES / _an_epoch(config, facts))), MOST_EPOCHS)


def _batch_norm(config: PruneConfig, facts: Facts) -> str:
    enough = facts.samples >= NORM_SAMPLES
    batch = run_size(config, facts.samples, facts.run)
    return "train" if facts.norms and enough and batch >= NORM_BATCH else "frozen"


def _optimizer(config: PruneConfig, facts: Facts) -> str:
    return "sgd" if facts.norms and config.batch_norm == "train" else "adam"


def _mixup(config: PruneConfig, facts: Facts) -> bool:
    small = config.rate is not None and config.rate >= MIXUP_RATE
    # Samples are mixed with others of their run.
    alone = facts.run == 1
    return facts.labeled and config.augment == NONE and not small and not alone and config.optimizer != "sgd"


def _weight_decay(config: PruneConfig, facts: Facts) -> float:
    """None where outputs are all that is followed: near them their gradients are smaller than that of the penalty."""
    follows = not facts.labeled or config.distill == 1
    return 0.0 if follows and config.regularization == "l2" else WEIGHT_DECAY


def _precision(config: PruneConfig, facts: Facts) -> str:
    if config.device != "cpu" or facts.work < BFLOAT16_WORK:
        return "float32"
    from onnxprune.training.precision import multiplies_bfloat16

    return "bfloat16" if multiplies_bfloat16() else "float32"


def _warmup(config: PruneConfig, facts: Facts) -> int:
    return min(WARMUP, int(WARMUP_SHARE * settled(config.epochs) * _an_epoch(config, facts)))


def untried_allocation(config: PruneConfig, scanned: int = 0) -> str:
    """The allocation that is chosen without a rehearsal; `scanned`: nodes of all sessions that would measure weights.

    Small layers are spared: LeNet-5 pruned by half in one step has 0.57 % error by ERK and 5.48 % with one rate. What
    is fitted to inputs can be measured on them as well: MobileNetV2 at half of its weights, trained on 300 images
    without labels, has 25.9 % error so, and 32.6 % by ERK.
    """
    if config.pattern == "channel" and is_calibrated(config):
        return UNTRIED_FITTED_ALLOCATION
    fixed = config.pattern in ("channel", "2:4") or config.std_threshold is not None or config.rate == 0
    once = config.data is None or config.schedule == "one-shot"
    measures = config.effort != "fast" and scanned <= MOST_SCANNED
    fitted = config.criterion == "second-order" and once and measures
    return "uniform" if fixed else UNTRIED_FITTED_ALLOCATION if fitted else UNTRIED_ALLOCATION


def untried_learning_rate(config: PruneConfig, samples: int) -> float:
    """The learning rate that is chosen without a rehearsal."""
    fitted = FITTED_FEW if samples < FEW_SAMPLES else FITTED
    return UNTRIED_LEARNING_RATES[config.optimizer] * (fitted if is_calibrated(config) else 1)


def rounding(reaches: Callable[[int], bool]) -> int:
    """The multiple of channels that layers of a model with convolutions keep; `reaches`: whether the rate allows it."""
    return next((number for number in ROUNDINGS if reaches(number)), 1)


# In the order in which they are chosen: a rule may read those before it.
RULES: Mapping[str, Callable[[PruneConfig, Any], Any]] = {
    "criterion": _criterion,
    "reconstruct": _fits_layers,
    "bias_correction": _fits_layers,
    "schedule": _schedule,
    "batch_size": lambda config, facts: batch_size(config, facts.samples),
    "epochs": _epochs,
    "warmup": _warmup,
    "batch_norm": _batch_norm,
    "optimizer": _optimizer,
    "mixup": _mixup,
    "weight_decay": _weight_decay,
    "precision": _precision,
}


# Without training data of the job these are all that is read; a loop of the user's own has a schedule too.
UNTRAINED: Mapping[str, Callable[[PruneConfig, Any], Any]] = {
    "criterion": _criterion,
    "reconstruct": _fits_layers,
    "bias_correction": _fits_layers,
    "allocation": lambda config, facts: untried_allocation(config),
    "schedule": _schedule,
    "batch_norm": lambda config, facts: "frozen",
}


def is_open(config: PruneConfig, name: str) -> bool:
    """Whether the user has left a setting to the job."""
    return getattr(config, name) in (None, AUTO)


def by_rule(config: PruneConfig, facts: Facts | None) -> PruneConfig:
    """The settings, those that are open chosen by the rules; `facts`: None without training data."""
    rules = UNTRAINED if facts is None else RULES
    for name, rule in rules.items():
        if is_open(config, name):
            value: Any = rule(config, facts)
            config = replace(config, **{name: value})
    return config


def chosen(given: PruneConfig, config: PruneConfig) -> str:
    """The settings that the job chose, as flags."""
    flags = []
    for name, each in config.__dataclass_fields__.items():
        value = getattr(config, name)
        if is_open(given, name) and value not in (None, AUTO):
            flag = flag_of(each)
            if isinstance(value, bool):
                flags.append(flag if value else f"--no-{flag[2:]}")
            else:
                flags.append(f"{flag} {value:g}" if isinstance(value, float) else f"{flag} {value}")
    return " ".join(flags)

"""Jobs with training data that calibration alone does better."""

from __future__ import annotations

from dataclasses import fields, replace

import onnx_ir as ir

from onnxprune.calibration.unseen import unseen
from onnxprune.config.settings import PruneConfig
from onnxprune.config.training import FineTuneSettings, ScheduleSettings
from onnxprune.job.choices.defaults import Facts, by_rule
from onnxprune.job.samples.inputs import JobData
from onnxprune.model.weights import Weight
from onnxprune.system.processes import process_count

# These say nothing about how to train.
_BESIDE = frozenset({"time", "seed", "device"})


def calibrated_instead(
    model: ir.Model, weights: tuple[Weight, ...], data: JobData, config: PruneConfig
) -> tuple[PruneConfig, JobData]:
    """A job that fits layers to its training data and trains nothing, where a training would be of no use.

    The data has no labels and fewer samples than the last layer scores classes, and no flag says how to train. From 270
    images without labels, MobileNetV2 at half of its weights answers as the dense model in 84.6 % of 1,000 others with
    a training (14 minutes of a core) and in 87 to 88 % without (5 minutes): the training brings the sizes of scores
    nearer to the dense ones, not their order. Any other job is returned as it is.
    """
    if data.training is None or process_count() > 1 or _says_how(config):
        return config, data
    few = [weight.name for weight in unseen(model, weights, len(data.training))]
    if not few:
        return config, data
    # Only now: they read samples.
    facts = Facts.of(model, data, work=1)
    if facts.labeled or by_rule(replace(config, time=None), facts).criterion != "second-order":
        return config, data
    reason = (
        f"Layers were fitted to {facts.samples} training samples, and nothing was fine-tuned: without labels, they "
        f"show too few of the classes that {', '.join(few)} scores. --epochs N trains all the same; labels, or more "
        "samples than classes, are of more use."
    )
    given, calibration = config.calibration_data, data.calibration
    if given is None:
        given, calibration = config.data, data.training
    config = replace(config, data=None, calibration_data=given, time=None)
    return config, replace(data, training=None, validation=None, calibration=calibration, untrained=reason)


def _says_how(config: PruneConfig) -> bool:
    """Whether a flag is given that only a training reads."""
    default = PruneConfig(rate=0.5)
    names = {each.name for settings in (ScheduleSettings, FineTuneSettings) for each in fields(settings)}
    names |= {"quantize_epochs", "augment", "validation_data"}
    return any(getattr(config, name) != getattr(default, name) for name in names - _BESIDE)

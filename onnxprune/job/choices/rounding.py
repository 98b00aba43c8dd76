"""The multiple of channels that pruned layers keep, where the user leaves it open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.job.choices.defaults import ROUNDINGS, rounding
from onnxprune.job.pruners.channels import ChannelPruning
from onnxprune.job.pruners.work import Work
from onnxprune.model.weights import Weight
from onnxprune.pruning.allocation import excluded_weights
from onnxprune.surgery import UnitGroups, unit_groups

CONVOLUTIONS = ("Conv", "ConvInteger", "ConvTranspose", "FusedConv", "QLinearConv")


class Rounded(NamedTuple):
    """The settings with --round-to, a sentence about it, and the channels and their work, if they were looked at."""

    config: PruneConfig
    note: str = ""
    groups: UnitGroups | None = None
    work: Work | None = None


def rounded(
    model: ir.Model,
    weights: tuple[Weight, ...],
    config: PruneConfig,
    work_of: Callable[[UnitGroups], Work | None] = lambda groups: None,
) -> Rounded:
    """Choose --round-to; `work_of`: what --flops or --latency leaves.

    A search chooses for each of its trials, when the rate is known. Layers with rates of their own keep them exactly.

    Raises:
        NothingToPruneError: there is a rate, but no channel can be removed.
    """
    if config.pattern != "channel" or config.round_to is not None or config.searches:
        return Rounded(config)
    if config.rate == 0 or config.layer_rate or not _convolves(weights, config):
        return Rounded(replace(config, round_to=1))
    groups = unit_groups(model)
    work = work_of(groups)
    number = rounding(ChannelPruning(model, weights, config, groups, work=work).reaches)
    return Rounded(replace(config, round_to=number), _note(number), groups, work)


def _convolves(weights: tuple[Weight, ...], config: PruneConfig) -> bool:
    excluded = set(excluded_weights(weights, config))
    return any(weight.op_type in CONVOLUTIONS and weight not in excluded for weight in weights)


def _note(number: int) -> str:
    if number > 1:
        return (
            f"Layers that lose channels keep a multiple of {number}, in which onnxruntime computes convolutions: "
            "--round-to 1 allows any number."
        )
    return (
        f"Layers keep any number of channels: multiples of {ROUNDINGS[0]}, which run faster, would miss what is asked "
        f"for (--round-to {ROUNDINGS[0]} keeps them all the same)."
    )

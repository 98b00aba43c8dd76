"""The rate for --bytes, found by pruning copies of the model and storing them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.job.pruners.pruner import make_pruner
from onnxprune.job.store import store
from onnxprune.model.files.staging import staging
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.allocation import included
from onnxprune.pruning.budget import HIGHEST, lowest_rate
from onnxprune.pruning.rates import Curve
from onnxprune.pruning.schedule import ONE_SHOT
from onnxprune.reports.record import COMPACT
from onnxprune.sparse.opset import raise_opset
from onnxprune.surgery import remove_dead_units
from onnxprune.training.module.norms import fold_norms

# Largest sizes of the metadata: evaluation, notes, versions and kernels together; the entry of a weight without its
# name; the curves of a training; the curves of a sensitivity scan.
FIXED_BYTES, LAYER_BYTES, TRAINING_BYTES, CURVES_BYTES = 500, 110, 1_200, 1_600


def rate_of_bytes(
    model: ir.Model,
    weights: Sequence[Weight],
    config: PruneConfig,
    curves: Mapping[str, Curve] | None,
    dense_bytes: int,
) -> float:
    """The lowest rate at which the file has at most `config.bytes`, without fine-tuning.

    `curves` as in `make_pruner`; `dense_bytes`: the size of the input file. The copies are pruned by magnitude,
    whatever the criterion.

    Raises:
        SettingError: no rate reaches that size.
    """
    asked = config.bytes
    assert isinstance(asked, int)
    config = replace(config, criterion="magnitude")
    raised = raise_opset(model, lambda before, after: True)[0] if config.format == "ops" else model
    room = asked - _metadata_bytes(weights, config)

    def size(rate: float) -> int:
        return _file_bytes(raised, replace(config, bytes=None, rate=rate), curves)

    if (least := size(HIGHEST)) > room:
        raise SettingError(
            f"--bytes {asked} cannot be reached: the file has {least + asked - room:,} bytes even with almost no "
            "weights; give a larger --bytes, or exclude fewer layers"
        )
    return lowest_rate(size, room, dense_bytes, least)


def _file_bytes(model: ir.Model, config: PruneConfig, curves: Mapping[str, Curve] | None) -> int:
    """The size of the file that a job writes at a rate, without metadata."""
    copy = model.clone()
    weights = included(find_weights(copy), config.include).prunable
    make_pruner(copy, weights, config, curves=curves).prune(ONE_SHOT, {})
    fold_norms(copy)
    if config.remove_dead:
        remove_dead_units(copy)
    with staging(None) as stage:
        store(copy, stage, config)
        return stage.file_bytes()


def _metadata_bytes(weights: Sequence[Weight], config: PruneConfig) -> int:
    """The largest size of the metadata that describes the job."""
    names = sum(len(weight.name) for weight in weights)
    known = FIXED_BYTES + LAYER_BYTES * len(weights) + names
    known += len(json.dumps(config.to_dict(), separators=COMPACT))
    known += TRAINING_BYTES if config.data is not None else 0
    return known + (CURVES_BYTES if config.allocation == "sensitivity" else 0)

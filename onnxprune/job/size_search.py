"""The rate at which a job's file has the size asked for: found by pruning copies of the model, and storing them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.job.pruner import make_pruner
from onnxprune.job.store import store
from onnxprune.model.io import staging
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.budget import HIGHEST, lowest_rate
from onnxprune.pruning.rates import Curve
from onnxprune.pruning.schedule import ONE_SHOT
from onnxprune.reports.record import COMPACT
from onnxprune.sparse.opset import raise_opset
from onnxprune.surgery import remove_dead_units

# Of the annotations, at most: the evaluation, notes, versions and where the nodes run; the line of a weight but its
# name; the curves of a training, and of sensitivities.
FIXED_BYTES, LAYER_BYTES, TRAINING_BYTES, CURVES_BYTES = 2_200, 110, 1_200, 1_600


def rate_of_bytes(
    model: ir.Model,
    weights: Sequence[Weight],
    config: PruneConfig,
    curves: Mapping[str, Curve] | None,
    dense_bytes: int,
) -> float:
    """The lowest rate at which the file has no more bytes than `config.bytes`, were nothing fine-tuned.

    `curves` as in `make_pruner`; `dense_bytes`: of the file as it is. Which weights are removed is settled by
    magnitude here, whatever the criterion.

    Raises:
        SettingError: no rate comes down to that.
    """
    asked = config.bytes
    assert isinstance(asked, int)
    config = replace(config, criterion="magnitude")
    raised = raise_opset(model, lambda before, after: True)[0] if config.format == "ops" else model
    room = asked - _annotations_bytes(weights, config)

    def size(rate: float) -> int:
        return _file_bytes(raised, replace(config, bytes=None, rate=rate), curves)

    if (least := size(HIGHEST)) > room:
        raise SettingError(
            f"--bytes {asked} is out of reach: {least + asked - room:,} would be left with next to no "
            "weights: ask for more, or exclude fewer layers"
        )
    return lowest_rate(size, room, dense_bytes, least)


def _file_bytes(model: ir.Model, config: PruneConfig, curves: Mapping[str, Curve] | None) -> int:
    """The size of the file, without annotations, that a job writes at a rate."""
    copy = model.clone()
    make_pruner(copy, find_weights(copy).prunable, config, curves=curves).prune(ONE_SHOT, {})
    if config.remove_dead:
        remove_dead_units(copy)
    with staging(None) as stage:
        store(copy, stage, config)
        return stage.file_bytes()


def _annotations_bytes(weights: Sequence[Weight], config: PruneConfig) -> int:
    """What the file says of its job, at most."""
    names = sum(len(weight.name) for weight in weights)
    known = FIXED_BYTES + LAYER_BYTES * len(weights) + names
    known += len(json.dumps(config.to_dict(), separators=COMPACT))
    known += TRAINING_BYTES if config.data is not None else 0
    return known + (CURVES_BYTES if config.allocation == "sensitivity" else 0)

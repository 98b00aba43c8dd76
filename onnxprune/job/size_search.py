"""The rate at which a job's file has the size asked for: found by cutting copies of the model, and writing them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.job.pruner import make_cutter
from onnxprune.model.io import staging
from onnxprune.model.weights import Weight, find_weights
from onnxprune.pruning.budget import HIGHEST, lowest_rate
from onnxprune.pruning.rates import Curve
from onnxprune.pruning.schedule import AT_ONCE
from onnxprune.report.record import ANNOTATION_PREFIX, COMPACT
from onnxprune.sparse.opset import raise_opset
from onnxprune.sparse.rewrite import to_ops
from onnxprune.surgery import remove_dead_units

# Of the annotations, at most: the judgement, notes, versions and where the nodes run; the line of a weight but its
# name; the curves of a training, and of sensitivities.
FIXED_BYTES, LAYER_BYTES, TRAINING_BYTES, CURVES_BYTES = 2_200, 110, 1_200, 1_600


def rate_of_bytes(
    model: ir.Model,
    weights: Sequence[Weight],
    config: PruneConfig,
    curves: Mapping[str, Curve] | None,
    dense_bytes: int,
) -> float:
    """The lowest rate at which the file has no more bytes than `config.bytes`, were nothing retrained.

    `curves` as in `make_cutter`; `dense_bytes`: of the file as it is. Which weights go is settled by
    magnitude here, whatever the criterion.

    Raises:
        SettingError: no rate comes down to that.
    """
    assert isinstance(config.bytes, int)
    raised = raise_opset(model, lambda before, after: True)[0] if config.format == "ops" else model
    room = config.bytes - _annotations_bytes(weights, config)

    def size(rate: float) -> int:
        return _file_bytes(raised, replace(config, bytes=None, rate=rate), curves)

    if (least := size(HIGHEST)) > room:
        raise SettingError(
            f"--bytes {config.bytes} is out of reach: {least + config.bytes - room:,} would be left with next to no "
            "weights: ask for more, or exclude fewer layers"
        )
    return lowest_rate(size, room, dense_bytes, least)


def _file_bytes(model: ir.Model, config: PruneConfig, curves: Mapping[str, Curve] | None) -> int:
    """Of the file, without annotations, that a job writes at a rate."""
    copy = model.clone()
    for key in [key for key in copy.metadata_props if key.startswith(ANNOTATION_PREFIX)]:
        del copy.metadata_props[key]
    make_cutter(copy, find_weights(copy).prunable, config, curves=curves).cut(AT_ONCE, {})
    if config.remove_dead:
        remove_dead_units(copy)
    sparse: set[str] = set()
    if config.format == "coo":
        sparse = {weight.name for weight in find_weights(copy).prunable}
    else:
        to_ops(copy, find_weights(copy).prunable, config.values)
    with staging(None) as stage:
        stage.write(copy, sparse_names=sparse)
        return stage.file_bytes()


def _annotations_bytes(weights: Sequence[Weight], config: PruneConfig) -> int:
    """What the file says of its job, at most."""
    names = sum(len(weight.name) for weight in weights)
    known = FIXED_BYTES + LAYER_BYTES * len(weights) + names
    known += len(json.dumps(config.to_dict(), separators=COMPACT))
    known += TRAINING_BYTES if config.data is not None else 0
    return known + (CURVES_BYTES if config.scope == "sensitivity" else 0)

"""Writing a pruned model in the format of the settings: one entry of `STORES` per format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from onnxprune.config.output import OutputSettings
from onnxprune.model.io import Staging
from onnxprune.model.weights import find_weights
from onnxprune.reports.record import ANNOTATION_PREFIX
from onnxprune.sparse.opset import raise_opset
from onnxprune.sparse.rewrite import Stored, quantized_dense, to_ops

External = bool | None
Same = Callable[[ir.Model, ir.Model], bool]
Place = Callable[[ir.Model], None]


def store(
    model: ir.Model,
    stage: Staging,
    settings: OutputSettings,
    external: External = None,
    same: Same = lambda before, after: True,
    place: Place = lambda model: None,
) -> dict[str, Stored]:
    """Write a model in the format of the settings; returns how each weight is stored, by name.

    `external`: whether weights go to external data (None: if one file would be too large). `same(before, after)`:
    whether a model converted to a higher opset gives the same outputs. `place(model)` chooses the kernels.
    """
    for key in [key for key in model.metadata_props if key.startswith(ANNOTATION_PREFIX)]:
        del model.metadata_props[key]
    return STORES[settings.format](model, stage, settings, external, same, place)


def _dense(
    model: ir.Model, stage: Staging, settings: OutputSettings, external: External, same: Same, place: Place
) -> dict[str, Stored]:
    stage.write(model, external=external)
    return {}


def _coo(
    model: ir.Model, stage: Staging, settings: OutputSettings, external: External, same: Same, place: Place
) -> dict[str, Stored]:
    weights = find_weights(model).prunable
    names = {weight.value.name or "" for weight in weights}
    sizes = stage.write(model, external=external, sparse_names=names)
    left = {weight.name: quantized_dense(weight) for weight in weights if weight.quantized}
    return left | {name: Stored(name, "coo", size) for name, size in sizes.items()}


def _ops(
    model: ir.Model, stage: Staging, settings: OutputSettings, external: External, same: Same, place: Place
) -> dict[str, Stored]:
    model, reason = raise_opset(model, same)
    outcomes = to_ops(model, find_weights(model).prunable, settings.values)
    place(model)
    stage.write(model, external=external)
    if reason is not None:
        outcomes = [replace(outcome, reason=reason) for outcome in outcomes]
    return {outcome.name: outcome for outcome in outcomes}


STORES = {"ops": _ops, "dense": _dense, "coo": _coo}

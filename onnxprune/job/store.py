"""Writing a pruned model in the format asked for: one entry of `FORMATS` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from onnxprune.config.declare import find_entry
from onnxprune.config.output import OutputSettings
from onnxprune.model.files.coo import SPARSE_TYPES
from onnxprune.model.files.staging import Staging
from onnxprune.model.weights import Weight, find_weights
from onnxprune.reports.record import ANNOTATION_PREFIX
from onnxprune.sparse.opset import raise_opset
from onnxprune.sparse.rewrite import to_ops
from onnxprune.sparse.stored import NO_GAIN, Stored, stored_dense

External = bool | None
Same = Callable[[ir.Model, ir.Model], bool | None]
Place = Callable[[ir.Model], None]
Types = Mapping[str, str]


@dataclass(frozen=True)
class How:
    """What only sparse nodes need to be told.

    `same(before, after)`: whether a model converted to a higher opset gives the same outputs. `place(model)` chooses
    the kernels. `instead` and `before`: see `onnxprune.sparse.rewrite.to_ops`.
    """

    same: Same = lambda before, after: True
    place: Place = lambda model: None
    instead: Types = field(default_factory=dict)
    before: Types = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A format of the weights: what it is, and what writes a model in it.

    `write(model, stage, settings, external, how)` is told what `store` is told, and returns what it returns.
    """

    help: str
    write: Callable[[ir.Model, Staging, OutputSettings, External, How], dict[str, Stored]]


AS_THEY_ARE = How()


def store(
    model: ir.Model,
    stage: Staging,
    settings: OutputSettings,
    was_external: bool = False,
    how: How = AS_THEY_ARE,
) -> dict[str, Stored]:
    """Write a model in the format of the settings; returns how each weight is stored, by name.

    `was_external`: whether the input model's weights were in external data.
    """
    for key in [key for key in model.metadata_props if key.startswith(ANNOTATION_PREFIX)]:
        del model.metadata_props[key]
    external = stored_apart(settings, was_external)
    return find_format(settings.format).write(model, stage, settings, external, how)


def stored_apart(settings: OutputSettings, was_external: bool) -> External:
    """Whether the weights go to external data; None: where one file would be too large."""
    return {"auto": was_external or None, "always": True, "never": False}[settings.external_data]


def find_format(name: str) -> Format:
    """The entry of a name; raises SettingError where there is none."""
    return find_entry("--format", FORMATS, name)


def _write_dense(
    model: ir.Model, stage: Staging, settings: OutputSettings, external: External, how: How
) -> dict[str, Stored]:
    stage.write(model, external=external)
    return {}


def _write_coo(
    model: ir.Model, stage: Staging, settings: OutputSettings, external: External, how: How
) -> dict[str, Stored]:
    weights = find_weights(model).all
    names = {weight.value.name or "" for weight in weights}
    sizes = stage.write(model, external=external, sparse_names=names)
    left = [weight for weight in weights if weight.value.name not in sizes]
    outcomes = {weight.name: stored_dense(weight, _why_not_coo(weight)) for weight in left}
    return outcomes | {name: Stored(name, "coo", size) for name, size in sizes.items()}


def _why_not_coo(weight: Weight) -> str:
    if int(weight.tensor.dtype) not in SPARSE_TYPES:
        return f"it is {weight.tensor.dtype.name.lower()}, which sparse_initializer is not written in"
    return f"{NO_GAIN} as many bytes or more"


def _write_ops(
    model: ir.Model, stage: Staging, settings: OutputSettings, external: External, how: How
) -> dict[str, Stored]:
    model, reason = raise_opset(model, how.same)
    weights = find_weights(model).all
    outcomes = to_ops(model, weights, settings.values, instead=how.instead, before=how.before)
    how.place(model)
    stage.write(model, external=external)
    if reason is not None:
        outcomes = [replace(outcome, reason=reason) for outcome in outcomes]
    return {outcome.name: outcome for outcome in outcomes}


FORMATS: Mapping[str, Format] = {
    "ops": Format("sparse nodes that decode themselves; small, and run by any onnxruntime", _write_ops),
    "dense": Format("the same graph with zeros in place", _write_dense),
    "coo": Format("ONNX sparse_initializer", _write_coo),
}


def unwritten(target: Path | None) -> str:
    """What a refusal says of the output file."""
    return f"{target} was not written" if target else "nothing was written"

"""What a job chooses before it prunes: norms put back, settings by rule, and settings by rehearsal."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, NamedTuple

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.data.images.augment import NONE
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.choices.defaults import RULES, Facts, by_rule, chosen, is_open
from onnxprune.job.choices.invariances import safe_augmentation
from onnxprune.job.choices.norms import restore
from onnxprune.job.choices.rehearsal import rehearsed
from onnxprune.job.choices.reordering import reorder
from onnxprune.job.choices.rounding import Rounded, rounded
from onnxprune.job.early_checks import check_measurable
from onnxprune.job.measure import channel_work
from onnxprune.job.pruners.pruner import usable_weights
from onnxprune.job.pruners.work import Work
from onnxprune.job.records import Records
from onnxprune.job.samples.aiming import labels_fit
from onnxprune.job.samples.freeing import free_batch
from onnxprune.job.samples.inputs import JobData, read_job_data, sample_shapes
from onnxprune.model.files.io import ModelLike, Source
from onnxprune.reports.record import FileRecord
from onnxprune.sparse.opening import open_model
from onnxprune.surgery import UnitGroups
from onnxprune.system.progress import Progress

# The part of --time that rehearsals may take.
REHEARSING = 0.1
# The settings that a job can choose.
CHOSEN = (*RULES, "augment", "allocation", "learning_rate", "round_to")


class Settled(NamedTuple):
    """The settings with all that was open chosen, notes about it, and channels and their work where they were found."""

    config: PruneConfig
    notes: tuple[str, ...]
    groups: UnitGroups | None
    work: Work | None


def settle(
    model: ir.Model,
    origin: Source,
    data: JobData,
    config: PruneConfig,
    dense: FileRecord,
    progress: Progress,
) -> Settled:
    """Choose all that is open; channels are reordered and norms put back in the model, in place.

    `dense`: the record of the input model.

    Raises:
        SettingError: norms are asked for, and there is no place for them.
    """
    notes = (*reorder(model, origin.name, data, config), *restore(model, data, config))
    given = config
    if data.training is not None:
        config = replace(config, **_resumed(config))
    config, rounding, groups, work = _rounded(model, origin, data, config, dense)
    notes = (*notes, *([rounding] if rounding else []))
    if data.training is None:
        return Settled(by_rule(config, None), notes, groups, work)
    deadline = None if config.seconds is None else time.monotonic() + REHEARSING * config.seconds
    config = replace(config, time=None)
    if is_open(config, "augment"):
        config = replace(config, augment=_augmentation(origin, data))
    config = by_rule(config, Facts.of(model, data, max(dense.multiply_adds, dense.parameters)))
    config = rehearsed(model, origin.name, data, config, dense, work, progress, deadline)
    flags = chosen(given, as_settled(given, config))
    return Settled(config, (*notes, *([f"Chosen for this job: {flags}."] if flags else [])), groups, work)


def _rounded(
    model: ir.Model, origin: Source, data: JobData, config: PruneConfig, dense: FileRecord
) -> Rounded:
    if config.pattern != "channel":
        return Rounded(config)
    weights = usable_weights(model, origin.name, config).prunable
    return rounded(
        model,
        weights,
        config,
        lambda groups: channel_work(model, groups, weights, data, config),
    )


def settled_beforehand(source: ModelLike, config: PruneConfig) -> PruneConfig:
    """The settings of all trials of a search, those that were open chosen once.

    Raises:
        DataError: there are too few validation samples for a search.
    """
    opened = open_model(source)
    model, origin = opened.model, opened.origin
    session = make_session(origin.file, origin.name)
    data = read_job_data(model, session, replace(config, eval_data=None, old_data=None))
    check_measurable(data.test if data.validation is None else data.validation, config)
    records = Records(usable_weights(model, origin.name, config), config)
    dense = records.baseline(model, origin, sample_shapes(data.test))
    _, data, _ = free_batch(model, session, data)
    return settle(model, origin, data, config, dense, lambda fraction: None).config


def as_settled(given: PruneConfig, config: PruneConfig) -> PruneConfig:
    """The settings for the record of a job: those that were chosen, and --time as it was given."""
    return config if given.time is None else replace(config, time=given.time, epochs=None)


def _augmentation(origin: Source, data: JobData) -> str:
    held = data.validation
    if held is None or not any(len(spec.shape) == 4 for spec in data.specs):
        return NONE
    session = make_session(origin.file, origin.name)
    if not labels_fit(held, [output.name for output in session.get_outputs()]):
        return NONE
    # The file is as it was, whatever the model is freed of.
    return safe_augmentation(session, replace(held, freed=None), data.specs)


def _resumed(config: PruneConfig) -> dict[str, Any]:
    """What the training that is resumed has chosen: what was measured then would come out otherwise now."""
    left = [name for name in CHOSEN if is_open(config, name)]
    if not left or not config.resume or config.checkpoint is None:
        return {}
    from onnxprune.training.checkpoint import settings_of

    settings = settings_of(config.checkpoint)
    return {name: settings[name] for name in left if name in settings}

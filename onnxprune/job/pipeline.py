"""The whole job, top to bottom: load, prune and fine-tune, remove dead units, quantize, write, evaluate, report."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import onnx
import onnxruntime as ort

from onnxprune.config.presets import preset_note
from onnxprune.config.settings import PruneConfig
from onnxprune.data.specs import input_specs
from onnxprune.errors import MissingOperatorError, ValidationError
from onnxprune.evaluation.comparison import Evaluation, compare
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.choices.calibrating import calibrated_instead
from onnxprune.job.choices.settling import as_settled, settle
from onnxprune.job.deadline import training_deadline
from onnxprune.job.earlier import Earlier
from onnxprune.job.early_checks import check_quantizable
from onnxprune.job.fine_tune import prune_and_fine_tune
from onnxprune.job.kernels import place_kernels, same_outputs
from onnxprune.job.measure import make_plan
from onnxprune.job.notes import notes, outcome_notes
from onnxprune.job.plain import check_plain, plain
from onnxprune.job.pruners.pruner import usable_weights
from onnxprune.job.quantizing.stage import Quantization
from onnxprune.job.quantizing.stored_values import stored_values
from onnxprune.job.quantizing.training import floats_deadline
from onnxprune.job.records import Records
from onnxprune.job.requirements import check_requirements
from onnxprune.job.result import ALONE, Context, Result
from onnxprune.job.samples.aiming import labels_fit
from onnxprune.job.samples.first_look import LOG, first_look
from onnxprune.job.samples.freeing import accumulation_notes, free_batch
from onnxprune.job.samples.inputs import JobData, read_job_data, sample_shapes
from onnxprune.job.samples.losses import loss_notes
from onnxprune.job.samples.padding import cut_padding
from onnxprune.job.sizes import travelling, with_sizes
from onnxprune.job.store import How, store, stored_apart, unwritten
from onnxprune.model.files.check import check_types
from onnxprune.model.files.io import ModelLike, Source
from onnxprune.model.files.staging import Staging, staging
from onnxprune.model.listed import relist
from onnxprune.reports.record import Report
from onnxprune.sparse.opening import OpenedModel, open_model
from onnxprune.surgery import remove_dead_units
from onnxprune.system.compression import gzip_bytes
from onnxprune.system.memory import free_memory
from onnxprune.system.packages import versions
from onnxprune.system.processes import is_first_process
from onnxprune.system.progress import Progress, StageProgress
from onnxprune.system.stopwatch import Stopwatch
from onnxprune.system.trust import trust
from onnxprune.training.module.norms import fold_norms


def run(
    source: ModelLike | OpenedModel,
    target: Path | None,
    config: PruneConfig,
    progress: StageProgress,
    context: Context = ALONE,
) -> Result:
    """Prune a model, fine-tune it if there is data, evaluate it in onnxruntime, and write it or keep it in memory.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it; nothing was written.
    """
    check_requirements(config)
    trust(config.allow_links, config.custom_ops)
    target = target if is_first_process() else None
    watch = Stopwatch(progress)
    begun = time.monotonic()
    with watch("load"):
        opened = open_model(source)
        model, origin, computed = opened.model, opened.origin, opened.computed
        earlier = Earlier.of(opened)
        check_plain(model, origin.name, config, config.input_shapes)
        if config.quantizes:
            check_quantizable(model, origin.name)
        if config.overridable:
            relist(model, origin.listed)
        baseline = open_baseline(origin, config)
        weights = usable_weights(model, origin.name, config)
        records = Records(weights, config)
    with staging(target, origin, external=stored_apart(config, origin.external)) as stage:
        with watch("read data"):
            data = read_job_data(model, baseline, config, context.data)
            config, data = calibrated_instead(model, weights.prunable, data, config)
            sample = sample_shapes(data.test)
            looks = context.looks and is_first_process()
            warnings = look(baseline, data, config) if baseline is not None and looks else ()
            deadline = None
            seconds = config.seconds or context.seconds
            if seconds is not None and baseline is not None:
                deadline = training_deadline(begun, seconds, baseline, data)
            dense = records.baseline(model, origin, sample)
            freed, fitting, sizes = free_batch(model, baseline, data)
            fitting, lengths = cut_padding(model, baseline, fitting)
            # Its weights would stay in memory beside those that are pruned.
            del baseline
            free_memory()
        with watch("try settings"):
            given = config
            advance = partial(progress, "try settings")
            config, choices, groups, work = settle(model, origin, fitting, config, dense, advance)
        with watch("measure"):
            advance = partial(progress, "measure")
            end = floats_deadline(deadline, config)
            plan = make_plan(
                model, weights.prunable, fitting, config, dense, advance, end, groups, work, progress
            )
        with watch("prune"):
            advance = partial(progress, "fine-tune")
            tuned = prune_and_fine_tune(model, plan.pruner, fitting, config, advance, context.start, end)
            fold_norms(model)
            not_removed = tuple(plan.pruner.notes())
            if freed is not None:
                freed.restore()
            records.pruned()
        with watch("remove dead units"):
            surgery = remove_dead_units(model) if config.remove_dead else None
            pruned = records.reduced(model, target, sample)
        if config.quantizes:
            with watch("quantize"):
                advance = partial(progress, "quantize")
                quantization = Quantization(model, origin.name, data, config, advance, deadline)
                model, records.folded, quantized = quantization.run()
                choices = (*choices, *quantized)
        with watch("write"):
            place = partial(place_kernels, config=config, data=data, progress=partial(progress, "write"))
            same = partial(same_outputs, data if config.runs_model else None)
            instead, rounding = stored_values(model, data, config, partial(progress, "write"))
            choices = (*choices, rounding) if rounding else choices
            model, shape_notes = plain(model, origin.name, config, config.input_shapes)
            tested = data.in_runs_of(input_specs(model)) if config.static else data
            # Layers that stay in floats beside quantized ones do so because they bear no rounding.
            output = replace(config, values="fp32") if config.quantizes else config
            stored = store(model, stage, output, origin.external, How(same, place, instead, earlier.values))
            pruned = records.stored(stored, pruned)
        with watch("evaluate"):
            curves, by_magnitude = plan.curves, plan.by_magnitude
            # The files are evaluated, so the model in memory is no longer needed.
            del opened, source, model, weights, plan, groups
            free_memory()
            evaluation = old = None
            if config.evaluate:
                evaluation, old = evaluate(origin, stage, tested, partial(progress, "evaluate"))
                refuse_worse(evaluation, config, target)
        report = Report(
            versions=versions(),
            settings=(context.settings or as_settled(given, config)).to_dict() | data.guessed(config),
            source_sha256=origin.sha256,
            baseline=with_sizes(replace(dense, gzip_bytes=travelling(origin)), origin.file, config, sample),
            pruned=with_sizes(pruned, stage.path, config, sample),
            layers=tuple(records.layers),
            unprunable=records.unprunable,
            surgery=asdict(surgery) if surgery else {},
            evaluation=None if evaluation is None else evaluation.to_dict(pictures=True),
            fine_tuning=tuned.epochs,
            notes=(
                *outcome_notes(evaluation, data),
                *warnings,
                *choices,
                *sizes,
                *lengths,
                *accumulation_notes(fitting, config),
                *((tuned.diverged,) if tuned.diverged else ()),
                *tuned.notes,
                *not_removed,
                *notes(config, origin, data, records, by_magnitude, surgery, computed),
                *earlier.notes(config, stored),
                *shape_notes,
                *stage.notes,
                *((chosen,) if (chosen := preset_note(config)) else ()),
            ),
            seconds=watch.seconds,
            histograms=records.histograms,
            old_evaluation=None if old is None else old.to_dict(),
            trials=context.trials,
            sensitivity=curves or {},
            sample=sample,
        )
        return deliver(report, stage, config)


def open_baseline(origin: Source, config: PruneConfig) -> ort.InferenceSession | None:
    """The input model in onnxruntime: what it accepts is valid for all later stages. None if the job does not run it.

    Raises:
        ModelFileError: onnxruntime refuses the model, or its types and shapes contradict each other.
    """
    if not config.runs_model:
        check_types(origin.file, origin.name)
        return None
    try:
        return make_session(origin.file, origin.name)
    except MissingOperatorError as error:
        instead = "--no-evaluate" if config.data is None else "--no-evaluate instead of --data"
        raise MissingOperatorError(
            f"{error}, or {instead}, to write the pruned model without running it"
        ) from None


def look(baseline: ort.InferenceSession, data: JobData, config: PruneConfig) -> tuple[str, ...]:
    """Tell how good the input model is on labeled data, and which loss is used; returns warnings."""
    given = data.test if data.test.labeled or data.training is None else data.training
    warnings: tuple[str, ...] = ()
    if labels_fit(given, [output.name for output in baseline.get_outputs()]):
        warnings = first_look(baseline, given, data.specs, data.metrics, config.label_offset)
    if data.training is not None:
        # What the labels are of is not known yet where the training ends before the model does.
        for note in loss_notes(data.training, config) if config.train_until is None else ():
            LOG.info(note)
        for note in () if data.training.labeled else data.training.notes:
            LOG.warning(note)
    return warnings


def evaluate(
    origin: Source, stage: Staging, data: JobData, progress: Progress
) -> tuple[Evaluation, Evaluation | None]:
    """Both models, as their files are, on the test data, and on the old data where there are any."""
    sessions = make_session(origin.file, origin.name), make_session(stage.path, "the pruned model")
    scored = partial(compare, *sessions, metrics=data.metrics)
    return scored(data=data.test, progress=progress), None if data.old is None else scored(data=data.old)


def refuse_worse(evaluation: Evaluation, config: PruneConfig, target: Path | None) -> None:
    """Refuse a model that is worse than --max-drop or --max-loss allows, or gives NaN on the data of the user.

    Raises:
        ValidationError: it is.
    """
    worse = evaluation.drop(), evaluation.loss()
    lost = next((output.output for output in evaluation.outputs if output.lost), None)
    given = (config.data, config.validation_data, config.eval_data, config.calibration_data)
    if lost is not None and any(each is not None for each in given):
        raise ValidationError(
            f"output {lost!r} of the pruned model is NaN or infinite on {evaluation.data}, where that of the input "
            f"model is not; {unwritten(target)}: lower --rate, or fine-tune more (--data, --epochs)"
        )
    if not evaluation.compares and (config.max_drop is not None or config.max_loss is not None):
        raise ValidationError(
            f"no output has elements on {evaluation.data}, so that no drop can be measured; {unwritten(target)}: "
            "give --eval-data on which there are some"
        )
    limits = (
        ("--max-drop", worse[0], config.max_drop, evaluation.drop_text, "absolute"),
        ("--max-loss", worse[1], config.max_loss, "{:.2%}".format, "relative"),
    )
    for flag, value, limit, text, kind in limits:
        # Not "value > limit": NaN is worse.
        if limit is None or value <= limit:
            continue
        raise ValidationError(
            f"the pruned model is worse by {text(value)} ({kind}, {evaluation.measured()}) on {evaluation.data}, "
            f"{flag} allows {text(limit)}; {unwritten(target)}: lower --rate, or fine-tune more "
            "(--data, --epochs, --steps)"
        )


def deliver(report: Report, stage: Staging, config: PruneConfig) -> Result:
    """Add the metadata to the written file, unless it is not wanted, and move it to the target, if there is one."""
    if config.annotations:
        stage.annotate(report.annotations())
    packed = gzip_bytes(sorted(stage.path.parent.iterdir()))
    report = replace(report, pruned=replace(report.pruned, bytes=stage.file_bytes(), gzip_bytes=packed))
    if isinstance(config.bytes, int) and report.pruned.bytes > config.bytes:
        excess = (
            f"The file is {report.pruned.bytes - config.bytes:,} bytes larger than --bytes {config.bytes}."
        )
        report = replace(report, notes=(*report.notes, excess))
    if stage.target is None:
        return Result(report, None, onnx.load(stage.path))
    report = replace(report, output_sha256=stage.sha256())
    stage.commit()
    return Result(report, stage.target, None)

"""The whole job, read top to bottom: load, prune and retrain in steps, remove what died, write, judge, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxprune.calibration.synthetic import NAME as SYNTHETIC
from onnxprune.config import PruneConfig
from onnxprune.cuts import Cutter, make_cutter, usable_weights
from onnxprune.data import fixed_batch, random_feeds
from onnxprune.errors import DataError, ModelFileError, ValidationError
from onnxprune.evaluate import BATCH_SAMPLES, Evaluation, compare, make_session
from onnxprune.material import Material, amount_of, calibration_of, curves_of, read_material, sample_shapes
from onnxprune.memory import give_back
from onnxprune.model.io import ModelLike, Source, Staging, load, staging
from onnxprune.model.weights import Weight, find_weights
from onnxprune.processes import is_first_process
from onnxprune.pruning.allocation import excluded_weights
from onnxprune.pruning.schedule import AT_ONCE
from onnxprune.report.record import ANNOTATION_PREFIX, FileRecord, LayerRecord, Report, weight_histogram
from onnxprune.sparse.choose import choose_auto, choose_portable, require_kernels
from onnxprune.sparse.fold import folding_notes
from onnxprune.sparse.opset import raise_opset
from onnxprune.sparse.restore import from_ops
from onnxprune.sparse.rewrite import Stored, quantized_dense, to_ops
from onnxprune.surgery import SurgeryReport, remove_dead_units

PACKAGES = ("onnxprune", "onnx", "onnx-ir", "onnxruntime", "numpy", "torch")

# Largest relative difference between two forms of one float32 model that differ by rounding alone.
ROUNDING = 1e-4

EXCLUDED = "--exclude names it"
# Channels are coarse: a rate missed by less is not worth a word.
SHORTFALL = 0.02

# Called with a stage's name and the fraction of it that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Result:
    """What a job leaves: the record of how it went, and the pruned model."""

    report: Report
    path: Path | None
    """The file written; None when no output was asked for."""
    _proto: onnx.ModelProto | None

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The pruned model, weights included."""
        if self._proto is not None:
            return self._proto
        assert self.path is not None
        return onnx.load(self.path)


@dataclass(frozen=True)
class Search:
    """What a job knows of the search that it is a trial of: the settings asked for and the trials so far."""

    settings: PruneConfig
    trials: tuple[dict[str, Any], ...] = ()
    start: Path | None = None
    """The checkpoint of a trial at a smaller rate, whose weights and masks this one begins with."""


def run(
    source: ModelLike,
    target: Path | None,
    config: PruneConfig,
    progress: Progress,
    search: Search | None = None,
) -> Result:
    """Prune a model, retrain it where there is data, judge it in onnxruntime, and write it, or leave it in memory.

    Raises:
        OnnxPruneError: what is wrong, in a sentence that says the mend; nothing was written.
    """
    if not is_first_process():
        target = None
    watch = _Stopwatch(progress)
    if config.target == "auto":
        require_kernels()
    with watch("load"):
        model, origin = load(source)
        # What onnxruntime accepts is well-formed for all that comes after.
        original = make_session(origin.file, origin.name)
        from_ops(model)
        found = usable_weights(model, origin.name, config)
        weights = found.prunable
        cutter = make_cutter(model, weights, config)
        excluded = excluded_weights(weights, config)
        layers = [LayerRecord.of(weight, EXCLUDED if weight in excluded else "") for weight in weights]
        values_before = [weight.tensor for weight in weights]
    with staging(target, origin) as stage:
        with watch("read data"):
            data = read_material(model, original, config)
            # Not to have its weights in memory beside those that are pruned.
            del original
            give_back()
            before = _count(model, weights, layers, origin.path, origin.file_bytes, data)
            curves = curves_of(model, weights, data, config)
            calibration = calibration_of(model, data, config)
            amount, costs = amount_of(model, weights, config, data, before, curves)
            if (curves, calibration, amount) != (None, None, config):
                cutter = make_cutter(model, weights, amount, calibration, curves, costs)
            passed_over = () if calibration is None else calibration.passed_over(cutter.weights)
            by_magnitude = [weight.name for weight in passed_over]
        with watch("prune"):
            start = None if search is None else search.start
            epochs = _prune(model, cutter, data, config, partial(progress, "prune"), start)
            histograms = {
                weight.name: weight_histogram(weight.encoding.decode(tensor.numpy()), weight.numbers())
                for weight, tensor in zip(weights, values_before, strict=True)
            }
        with watch("remove dead units"):
            surgery = remove_dead_units(model) if config.remove_dead else None
            layers = [layer.pruned(weight) for layer, weight in zip(layers, weights, strict=True)]
            after = _count(model, weights, layers, target, 0, data)
        with watch("write"):
            kept = sum(layer.kept for layer in layers)
            external = {"auto": origin.external or None, "always": True, "never": False}[config.external_data]
            stored = _store(model, stage, config, data, partial(progress, "write"), external)
            layers = [_as_stored(layer, stored) for layer in layers]
            folded = [node for outcome in stored.values() for node in outcome.folded]
            rounded_away = kept - sum(layer.kept for layer in layers)
            after = replace(after, nonzero=after.nonzero - rounded_away)
        with watch("judge"):
            # The files are judged: what they were made from need not be in memory as well.
            unprunable = found.unprunable
            del model, found, weights, values_before, cutter, calibration, passed_over
            give_back()
            original = make_session(origin.file, origin.name)
            pruned = make_session(stage.path, "the pruned model")
            evaluation = compare(original, pruned, data.judging, data.specs, partial(progress, "judge"))
            old = compare(original, pruned, data.old, data.specs) if data.old is not None else None
        _refuse_worse(evaluation, config, target)
        report = Report(
            versions=_versions(),
            settings=(search.settings if search else config).to_dict(),
            source_sha256=origin.sha256,
            before=before,
            after=after,
            layers=tuple(layers),
            unprunable=unprunable,
            surgery=asdict(surgery) if surgery else {},
            evaluation=evaluation.to_dict(),
            retraining=epochs,
            notes=(
                *_notes(config, origin, target, data, layers, by_magnitude, surgery),
                *folding_notes(folded),
            ),
            seconds=watch.seconds,
            histograms=histograms,
            old_evaluation=None if old is None else old.to_dict(),
            trials=search.trials if search else (),
            sensitivity=curves or {},
            sample=sample_shapes(data.judging),
        )
        stage.annotate(report.annotations())
        report = replace(report, after=replace(after, bytes=stage.file_bytes()))
        if isinstance(config.bytes, int) and report.after.bytes > config.bytes:
            excess = (
                f"The file is larger than --bytes {config.bytes}, by {report.after.bytes - config.bytes:,}."
            )
            report = replace(report, notes=(*report.notes, excess))
        if target is None:
            return Result(report, None, onnx.load(stage.path))
        report = replace(report, output_sha256=stage.sha256())
        stage.commit()
    return Result(report, target, None)


def _versions() -> dict[str, str]:
    """The versions that made the result; torch may be absent where nothing is retrained."""
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _prune(
    model: ir.Model,
    cutter: Cutter,
    data: Material,
    config: PruneConfig,
    progress: Callable[[float], None],
    start: Path | None,
) -> tuple[dict[str, Any], ...]:
    """Prune, retraining where there is data; a record of every state judged on the way."""
    if data.training is None or data.held_out is None:
        cutter.cut(AT_ONCE, {})
        return ()
    # Only retraining needs torch, whose import takes longer than a one-shot job.
    from onnxprune.retraining import prune_and_retrain

    return prune_and_retrain(model, cutter, data.training, data.held_out, data.specs, config, progress, start)


def _store(
    model: ir.Model,
    stage: Staging,
    config: PruneConfig,
    data: Material,
    progress: Callable[[float], None],
    external: bool | None,
) -> dict[str, Stored]:
    """Write the model in the format asked for: by name, how each weight that the format touched is stored."""
    for key in [key for key in model.metadata_props if key.startswith(ANNOTATION_PREFIX)]:
        del model.metadata_props[key]
    if config.format == "coo":
        weights = find_weights(model).prunable
        names = {weight.value.name or "" for weight in weights}
        sizes = stage.write(model, external=external, sparse_names=names)
        left = {weight.name: quantized_dense(weight) for weight in weights if weight.quantized}
        return left | {name: Stored(name, "coo", size) for name, size in sizes.items()}
    outcomes: list[Stored] = []
    if config.format == "ops":
        model, reason = raise_opset(model, partial(_same_outputs, data))
        outcomes = to_ops(model, find_weights(model).prunable, config.values)
        _choose(model, config, data, progress)
        if reason is not None:
            outcomes = [replace(outcome, reason=reason) for outcome in outcomes]
    stage.write(model, external=external)
    return {outcome.name: outcome for outcome in outcomes}


def _choose(model: ir.Model, config: PruneConfig, data: Material, progress: Callable[[float], None]) -> None:
    """Have each sparse node run by a kernel or dense, for one sample of what is judged, or the shapes asked for."""
    feeds = data.judging.take(slice(0, fixed_batch(data.specs) or 1)).inputs
    if config.input_shape:
        shapes = {name: array.shape for name, array in feeds.items()} | dict(config.input_shape)
        feeds = random_feeds(data.specs, shapes, config.seed)
    if config.target == "auto":
        choose_auto(model, feeds, progress=progress)
    elif config.target == "portable":
        choose_portable(model, feeds)


def _as_stored(layer: LayerRecord, stored: dict[str, Stored]) -> LayerRecord:
    outcome = stored.get(layer.name)
    if outcome is None:
        return layer
    return replace(
        layer,
        format=outcome.format,
        values=outcome.values,
        kept=layer.kept if outcome.kept is None else outcome.kept,
        bytes_after=outcome.bytes,
        note=layer.note or outcome.reason or "",
    )


def _count(
    model: ir.Model,
    weights: tuple[Weight, ...],
    layers: list[LayerRecord],
    path: Path | None,
    file_bytes: int,
    data: Material,
) -> FileRecord:
    """A model counted, for one of the samples that it is judged on; its weights are in their records."""
    kept = {layer.name: layer.kept for layer in layers}
    return FileRecord.of(model, weights, kept, path, file_bytes, sample_shapes(data.judging))


def _refuse_worse(evaluation: Evaluation, config: PruneConfig, target: Path | None) -> None:
    drop = evaluation.drop()
    if config.max_drop is None or drop <= config.max_drop:
        return
    raise ValidationError(
        f"the pruned model is worse by {drop:.2%} on {evaluation.data}, --max-drop allows {config.max_drop:.2%}; "
        f"{target or 'nothing'} was left as it was: lower --rate, or retrain more (--data, --epochs, --steps)"
    )


def _same_outputs(data: Material, before: ir.Model, after: ir.Model) -> bool:
    """Whether two forms of a model give the same outputs, to rounding; not so where one does not run."""
    try:
        sessions = []
        for model in (before, after):
            with staging(None) as stage:
                stage.write(model.clone())
                sessions.append(make_session(stage.path, "the converted model"))
        some = data.judging.take(slice(0, BATCH_SAMPLES))
        return compare(sessions[0], sessions[1], some, data.specs).relative() <= ROUNDING
    except (ModelFileError, DataError):
        return False


def _notes(
    config: PruneConfig,
    origin: Source,
    target: Path | None,
    data: Material,
    layers: list[LayerRecord],
    by_magnitude: list[str],
    surgery: SurgeryReport | None,
) -> Iterator[str]:
    """What the reader of the summary should know."""
    if data.training is None:
        yield (
            "No retraining was done, for want of data. To retrain: "
            f"onnxprune {origin.path or 'IN.onnx'} {target or 'OUT.onnx'} {config.amount} --data DATA"
        )
    elif config.data == SYNTHETIC:
        yield f"Retrained on {data.training.name}, towards its own outputs: real --data does better."
    elif config.eval_data is None:
        yield (
            f"Judged on the {data.judging.name}, which also picked the best epoch; "
            "--eval-data gives an independent judgement."
        )
    if data.training is None and data.calibration is not None:
        yield (
            f"Calibrated on {data.calibration.name}, {config.calibration_samples:,} samples at most; "
            "no label was used."
        )
    if by_magnitude:
        yield (
            f"Cut by magnitude, and not fitted to the inputs: {', '.join(by_magnitude)} "
            "(quantized, transposed or in the body of an If, or too many inputs)."
        )
    if data.judging.labels is None:
        yield "No labels: the table says how far the outputs moved, not whether they are right."
    if origin.inlined:
        yield f"The functions {', '.join(origin.inlined)} were inlined: there are weights in them."
    if surgery is not None and surgery.units_removed:
        yield (
            f"{surgery.units_removed:,} neurons and channels were dead and are gone, "
            "with the weights that still led to or from them."
        )
    kept, size = sum(layer.kept for layer in layers), sum(layer.size for layer in layers)
    if (
        config.pattern == "channel"
        and config.rate is not None
        and size
        and 1 - kept / size < config.rate - SHORTFALL
    ):
        yield (
            f"Only {1 - kept / size:.0%} of the weights went; the rest is excluded, or frozen (--json says why): "
            "--pattern unstructured can take more."
        )
    if config.flops is not None or config.bytes is not None:
        tuned = " (sizes within 2% below, before any retraining)" if config.bytes is not None else ""
        yield f"{config.amount} came to a rate of {1 - kept / max(size, 1):.4f}{tuned}."
    empty = [layer.name for layer in layers if not layer.kept]
    if empty:
        yield f"Nothing is left of {', '.join(empty)}: its outputs are constant; give it a --layer-rate."


class _Stopwatch:
    """Wall time of each stage, in seconds; tells the progress when one begins."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._progress(stage, 0.0)
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start

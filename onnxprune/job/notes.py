"""The notes in the summary of a job: sentences about its data, rates and side effects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnxprune.calibration.synthetic import NAME as SYNTHETIC
from onnxprune.config.settings import PruneConfig
from onnxprune.evaluation.comparison import Evaluation
from onnxprune.evaluation.labels import label_forms
from onnxprune.job.first_look import CHANCE_ERRORS
from onnxprune.job.inputs import JobData
from onnxprune.job.records import Records
from onnxprune.model.io import Source
from onnxprune.sparse.fold import folding_notes
from onnxprune.surgery import SurgeryReport

# Channels are coarse: a rate that is missed by less than this needs no note.
SHORTFALL = 0.02


def notes(
    config: PruneConfig,
    origin: Source,
    target: Path | None,
    data: JobData,
    records: Records,
    by_magnitude: tuple[str, ...],
    surgery: SurgeryReport | None,
) -> Iterator[str]:
    """The notes of a finished job; a search adds its own."""
    yield from _on_data(config, origin, target, data)
    if by_magnitude:
        yield (
            f"These weights cannot be calibrated and were pruned by magnitude: {', '.join(by_magnitude)} "
            "(quantized, transposed, in the body of an If, or too many inputs)."
        )
    if origin.inlined:
        yield f"Model-local functions were inlined because they contain weights: {', '.join(origin.inlined)}."
    if origin.listed and not config.overridable:
        yield (
            f"{len(origin.listed):,} initializers that the input model lists among its inputs are plain constants now: "
            "--overridable keeps them there."
        )
    if surgery is not None and surgery.units_removed:
        yield (
            f"{surgery.units_removed:,} dead neurons and channels were removed, "
            "with the remaining weights that lead to or from them."
        )
    yield from folding_notes(records.folded)
    yield from _on_rates(config, records)


def _on_data(config: PruneConfig, origin: Source, target: Path | None, data: JobData) -> Iterator[str]:
    if data.training is None:
        yield (
            "Nothing was fine-tuned, because there is no --data. To fine-tune: "
            f"onnxprune {origin.path or 'IN.onnx'} {target or 'OUT.onnx'} {config.amount} --data DATA"
        )
    elif config.data == SYNTHETIC:
        yield (f"Fine-tuned by distillation on {data.training.name}: real --data gives better results.")
    elif config.eval_data is None:
        yield (
            f"Evaluated on the {data.test.name}, which also selected the best epoch: "
            "give --eval-data for an independent evaluation."
        )
    if data.training is None and data.calibration is not None:
        yield (
            f"Calibrated on at most {config.calibration_samples:,} samples of {data.calibration.name}, "
            "without labels."
        )
    yield from dict.fromkeys(note for each in data.given() for note in each.notes)
    if not data.test.labeled:
        yield "There are no labels: the evaluation compares the outputs of both models, it is not an accuracy."


def outcome_notes(evaluation: Evaluation, data: JobData) -> Iterator[str]:
    """Whether the pruned model is no better than guessing, where the input model was."""
    forms = label_forms(data.test)
    classes = next(iter(forms.values())).classes if forms else 0
    if classes < 2 or evaluation.pruned is None or evaluation.baseline is None:
        return
    if evaluation.pruned.name != "top-1":
        return
    before, after = evaluation.baseline.value, evaluation.pruned.value
    chance = 1 / classes + CHANCE_ERRORS * (1 / classes / evaluation.samples) ** 0.5
    if after <= chance < before:
        yield (
            f"The pruned model is right for {after:.1%} of {evaluation.data}, which is near chance, the input model "
            f"for {before:.1%}: give a lower --rate, or more training (--data, --epochs, --time)."
        )


def _on_rates(config: PruneConfig, records: Records) -> Iterator[str]:
    reached = 1 - records.kept / max(records.size, 1)
    channel = config.pattern == "channel" and config.rate is not None and records.size
    if channel and config.rate is not None and reached < config.rate - SHORTFALL:
        yield (
            f"Only {reached:.0%} of the weights were removed; the other channels are excluded or frozen (see "
            "--report). --pattern unstructured can remove more."
        )
    if config.flops is not None or config.bytes is not None:
        yield f"The rate for {config.amount} is {reached:.4f}."
    empty = [layer.name for layer in records.layers if not layer.kept]
    if empty:
        yield (
            f"All weights of {', '.join(empty)} were removed, so the outputs are constant: give a lower --layer-rate."
        )

"""The notes in the summary of a job: sentences about its data, rates and side effects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxprune.calibration.synthetic import NAME as SYNTHETIC
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import some
from onnxprune.evaluation.comparison import Evaluation
from onnxprune.evaluation.labels import label_forms
from onnxprune.job.records import Records
from onnxprune.job.requirements import reads_calibration
from onnxprune.job.samples.first_look import CHANCE_ERRORS
from onnxprune.job.samples.inputs import JobData
from onnxprune.model.computed import Computed
from onnxprune.model.files.io import Source
from onnxprune.reports.record import Detail
from onnxprune.sparse.fold import folding_notes
from onnxprune.surgery import SurgeryReport

# Where those are to be seen that a note does not name.
IN_INSPECT = " (see `onnxprune inspect`)"


def notes(
    config: PruneConfig,
    origin: Source,
    data: JobData,
    records: Records,
    by_magnitude: tuple[str, ...],
    surgery: SurgeryReport | None,
    computed: tuple[Computed, ...],
) -> Iterator[str]:
    """The notes of a finished job; a search adds its own."""
    if not config.evaluate:
        yield (
            "Not evaluated (--no-evaluate): how far the outputs are from those of the input model is not known. "
            "Compare both where their operators are: onnxprune compare, with --custom-ops LIBRARY if need be."
        )
    yield from _on_data(config, data)
    if config.runs_model:
        yield from _on_axes(data)
    if by_magnitude:
        yield (
            f"These weights cannot be calibrated and were pruned by magnitude: {', '.join(by_magnitude)} "
            "(quantized, transposed, an embedding, in the body of an If, or too many inputs)."
        )
    yield from _on_computed(computed)
    yield from _on_left(records)
    if origin.inlined:
        yield Detail(
            f"Model-local functions were inlined because they contain weights: {', '.join(origin.inlined)}."
        )
    if origin.listed and not config.overridable:
        yield (
            f"{len(origin.listed):,} initializers that the input model lists among its inputs are plain constants now: "
            "--overridable keeps them there."
        )
    if surgery is not None and surgery.units_removed:
        dead = "" if config.pattern == "channel" else "dead "
        yield Detail(
            f"{surgery.units_removed:,} {dead}neurons and channels were removed, "
            "with all weights that lead to or from them."
        )
    yield from map(Detail, folding_notes(records.folded))
    yield from _on_rates(config, records)


def _on_data(config: PruneConfig, data: JobData) -> Iterator[str]:
    if data.training is None:
        if data.untrained:
            yield data.untrained
        elif (
            config.rate != 0
        ):  # with 0 a model is stored that was trained elsewhere, for example in a session
            yield "Nothing was fine-tuned: add --data DATA to the same flags to do so."
    elif config.data == SYNTHETIC:
        yield (f"Fine-tuned by distillation on {data.training.name}: real --data gives better results.")
    elif config.eval_data is None and config.evaluate:
        yield (
            f"Evaluated on the {data.test.name}, which also selected the best epoch: "
            "give --eval-data for an independent evaluation."
        )
    if data.training is None and data.calibration is not None and reads_calibration(config):
        most = min(config.calibration_samples, len(data.calibration))
        yield Detail(f"Calibrated on at most {most:,} samples of {data.calibration.name}, without labels.")
    yield from dict.fromkeys(note for each in data.given() for note in each.notes)
    if not config.evaluate:
        return
    if data.training is None and config.calibration_data == SYNTHETIC and config.eval_data is None:
        yield "The evaluation is on generated inputs, too, and says little of real ones: give --eval-data."
    if not data.test.labeled:
        yield "There are no labels: the evaluation compares the outputs of both models, it is not an accuracy."
    elif not config.metrics and all(form.kind == "other" for form in label_forms(data.test).values()):
        yield (
            f"No metric knows the labels of {data.test.name}: the evaluation compares the outputs of both models. "
            "--metric MODULE:FUNCTION can score them."
        )


def _on_axes(data: JobData) -> Iterator[str]:
    """Where samples lie, unless it is the first axis of all inputs."""
    axes, inputs = data.test.axes, [spec.name for spec in data.specs if spec.shape]
    if axes.whole and inputs:
        yield (
            "No input has a batch axis, so every sample is a run of its own. If that is wrong, give --batch-axis "
            f"{inputs[0]}:AXIS."
        )
    elif any(axes.of(name) != 0 for name in inputs):
        named = ((name, "none" if axes.of(name) is None else axes.of(name)) for name in inputs)
        flags = " ".join(f"--batch-axis {name}:{axis}" for name, axis in named)
        alone = [name for name in inputs if axes.of(name) is None]
        shared = f"; {', '.join(alone)} go{'es' * (len(alone) == 1)} with every sample" if alone else ""
        yield f"Samples lie along these axes{shared}: {flags}."


def outcome_notes(evaluation: Evaluation | None, data: JobData) -> Iterator[str]:
    """Where outputs are not finite, and whether only the pruned model is no better than guessing."""
    if evaluation is None:
        return
    if evaluation.draws:
        yield evaluation.draws
    for output in evaluation.outputs:
        count = f"of {output.elements:,} numbers of output {output.output!r}"
        if not output.elements:
            yield f"Output {output.output!r} has no elements on {evaluation.data}, so that it is not compared."
        if output.not_finite:
            yield f"{output.not_finite:,} {count} of the input model are not finite on {evaluation.data}."
        if output.lost:
            yield (
                f"{output.lost:,} {count} of the pruned model are not finite on {evaluation.data}, where those of the "
                "input model are: give a lower --rate."
            )
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


def _on_computed(computed: Sequence[Computed]) -> Iterator[str]:
    if computed:
        texts = [f"{one.name} (by {some(one.op_types)})" for one in computed]
        yield Detail(
            f"Weights computed from constants are now constants themselves: {some(texts, where=IN_INSPECT)}."
        )


def _on_left(records: Records) -> Iterator[str]:
    """Which weights the rate is not a fraction of, and their share of all."""
    left = [one for one in records.unprunable if one.size]
    size = sum(one.size for one in left)
    if size:
        texts = [f"{one.weight} of {one.op_type} {one.node}".strip() + f" ({one.reason})" for one in left]
        total = size + records.size
        yield (
            f"{size:,} of {total:,} weights ({size / total:.2%}) were left as they are, and do not count towards the "
            f"rate: {some(texts, where=IN_INSPECT)}."
        )


def _on_rates(config: PruneConfig, records: Records) -> Iterator[str]:
    reached = 1 - records.kept / max(records.size, 1)
    if config.flops is not None or config.bytes is not None:
        yield f"The rate for {config.amount} is {reached:.4f}."
    empty = [layer.name for layer in records.layers if not layer.kept]
    if empty:
        yield (
            f"All weights of {', '.join(empty)} were removed, so the outputs are constant: give a lower rate, or "
            "--allocation uniform."
        )

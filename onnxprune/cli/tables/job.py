"""The record of a job as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from onnxprune.cli.tables.common import table, unprunable_table
from onnxprune.evaluation.metrics import METRICS, score_text
from onnxprune.reports.record import Detail, LayerRecord, Report
from onnxprune.reports.summary import score_texts
from onnxprune.reports.text import bytes_text, shape_text

# The metric whose column is shown, empty, where there are no labels.
DEFAULT = "top-1"
# Smaller ones are shown in percent: 1.0x says nothing.
LEAST_RATIO = 1.1
# Of more layers, only the largest are shown.
MOST_ROWS, LARGEST = 24, 16


def job_summary(report: Report, verbose: bool = False) -> RenderableType:
    """The layers, then the baseline and the pruned model side by side, then the outputs and the notes.

    `verbose`: all layers, and how the job was done.
    """
    notes = [note for note in report.notes if verbose or not isinstance(note, Detail)]
    lines = [*_output_lines(report), *notes]
    return Group(_layers(report, verbose), _totals(report), *(f"- {escape(line)}" for line in lines))


def job_details(report: Report) -> RenderableType:
    """Every epoch on validation data, the weights that could not be pruned, and those that are stored dense."""
    metric = next((record["metric"] for record in report.fine_tuning if record["metric"]), DEFAULT)
    title = METRICS[metric].title if metric in METRICS else metric
    columns = ("step", "epoch", "training loss", "validation loss", f"validation {title}")
    epochs = table("fine-tuning", *columns, numeric=len(columns))
    for record in report.fine_tuning:
        training = "" if record["training_loss"] is None else f"{record['training_loss']:.4f}"
        score = "" if record["score"] is None else score_text({"name": metric, "value": record["score"]})
        epochs.add_row(
            str(record["step"]), f"{record['epoch']:.2f}", training, f"{record['loss']:.4f}", score
        )
    dense = [
        f"- {escape(layer.name)} is stored dense: {escape(layer.note)}."
        for layer in report.layers
        if layer.note
    ]
    return Group(*([epochs] if report.fine_tuning else []), *unprunable_table(report.unprunable), *dense)


def _layers(report: Report, every_layer: bool) -> Table:
    """A row for each layer, or only for the largest where they would fill more than a screen; then their sum."""
    made = table("", "weight", "operator", "shape", "kept / all", "removed", "bytes", numeric=3)
    few = every_layer or len(report.layers) <= MOST_ROWS
    largest = sorted(report.layers, key=lambda layer: -layer.size)[: None if few else LARGEST]
    shown = {layer.name for layer in largest}
    for layer in report.layers:
        if layer.name in shown:
            made.add_row(escape(layer.name), layer.op_type, _shape_change(layer), *_counts((layer,)))
    others = tuple(layer for layer in report.layers if layer.name not in shown)
    made.add_section()
    if others:
        made.add_row(f"{len(others):,} smaller ones (shown by --verbose)", "", "", *_counts(others))
    made.add_row("all", "", "", *_counts(report.layers))
    return made


def _shape_change(layer: LayerRecord) -> str:
    after = shape_text(layer.shape_after)
    return after if layer.shape == layer.shape_after else f"{shape_text(layer.shape)} -> {after}"


def _counts(layers: tuple[LayerRecord, ...]) -> tuple[str, str, str]:
    kept, size = sum(layer.kept for layer in layers), sum(layer.size for layer in layers)
    before, after = sum(layer.bytes for layer in layers), sum(layer.bytes_after for layer in layers)
    return (
        f"{kept:,} / {size:,}",
        f"{1 - kept / max(size, 1):.2%}",
        f"{bytes_text(before)} -> {bytes_text(after)}",
    )


def _totals(report: Report) -> Table:
    made = table("", "", "baseline", "pruned", "", numeric=3)
    for row in _total_rows(report):
        made.add_row(*row)
    return made


def _total_rows(report: Report) -> Iterator[tuple[str, str, str, str]]:
    baseline, pruned = report.baseline, report.pruned
    yield (
        "parameters",
        f"{baseline.parameters:,}",
        f"{pruned.parameters:,}",
        _times(baseline.parameters, pruned.parameters),
    )
    yield (
        "  non-zero",
        f"{baseline.nonzero:,}",
        f"{pruned.nonzero:,}",
        _times(baseline.nonzero, pruned.nonzero),
    )
    if baseline.multiply_adds:  # none where no shapes are known
        yield "multiply-adds", *_change(baseline.multiply_adds, pruned.multiply_adds)
        yield "  with non-zeros", *_change(baseline.nonzero_multiply_adds, pruned.nonzero_multiply_adds)
    units = [(layer["outputs_before"], layer["outputs_after"]) for layer in report.surgery.get("layers", ())]
    if units:
        yield "channels and neurons", *_change(sum(pair[0] for pair in units), sum(pair[1] for pair in units))
    yield (
        "file size",
        bytes_text(baseline.bytes),
        bytes_text(pruned.bytes),
        _times(baseline.bytes, pruned.bytes),
    )
    for name, before, after in (
        ("  compressed (gzip)", baseline.gzip_bytes, pruned.gzip_bytes),
        ("flash for constants", baseline.constant_bytes, pruned.constant_bytes),
        ("peak activation memory", baseline.peak_bytes, pruned.peak_bytes),
    ):
        if before is not None and after is not None:
            yield name, bytes_text(before), bytes_text(after), _times(before, after)
    if report.evaluation is not None:
        yield from _evaluation_rows(report.evaluation)
    if report.old_evaluation is not None:
        for name, *cells in _evaluation_rows(report.old_evaluation):
            yield f"{name}, old data", cells[0], cells[1], cells[2]
    yield "time", "", f"{sum(report.seconds.values()):.1f} s", _slowest(report.seconds)


def _evaluation_rows(evaluation: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for title, old, new in score_texts(evaluation):
        yield escape(title), old, new, ""


def _output_lines(report: Report) -> Iterator[str]:
    """What the models were evaluated on, and how far the outputs of the pruned one are from the baseline's."""
    for evaluation in filter(None, (report.evaluation, report.old_evaluation)):
        yield f"Evaluated in onnxruntime on {evaluation['data']}, {evaluation['samples']:,} samples."
        for output in evaluation["outputs"]:
            if output.get("unlike"):
                yield f"Output {output['output']} is unlike the baseline's: {output['unlike']}."
                continue
            agreement = "" if output["agreement"] is None else f", same top-1 {output['agreement']:.2%}"
            yield (
                f"Output {output['output']} beside the baseline's: cosine {output['cosine']:.4f}{agreement}, largest "
                f"difference {output['absolute']:.3g} (relative {output['relative']:.3g})."
            )


def _change(before: int, after: int) -> tuple[str, str, str]:
    return f"{before:,}", f"{after:,}", _times(before, after)


def _times(before: int, after: int) -> str:
    """How much smaller or larger: 4.0x; a difference of few percent as 2.3%; nothing where it rounds to 0.0%."""
    if not before or not after:
        return ""
    ratio, word = (before / after, "smaller") if after < before else (after / before, "larger")
    if ratio >= LEAST_RATIO:
        return f"{ratio:.1f}x {word}"
    percent = f"{abs(1 - after / before):.1%}"
    return "" if percent == "0.0%" else f"{percent} {word}"


def _slowest(seconds: dict[str, float]) -> str:
    stage, time = max(seconds.items(), key=lambda item: item[1])
    return f"{stage} {time:.1f} s"

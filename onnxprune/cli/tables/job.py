"""The record of a job as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from onnxprune.model.io import Source
from onnxprune.model.weights import Unprunable, Weights
from onnxprune.report.record import LayerRecord, Report


def job_summary(report: Report) -> RenderableType:
    """Per layer what is left, then the whole before and after, then what the reader should know."""
    judged = (
        f"Judged in onnxruntime on {report.evaluation['data']}, {report.evaluation['samples']:,} samples."
    )
    return Group(_layers(report), _totals(report), *(f"- {escape(line)}" for line in (judged, *report.notes)))


def job_details(report: Report) -> RenderableType:
    """Every epoch on held-out data, the weights that could not be pruned, and those that stay dense and why."""
    epochs = _table(
        "retraining", "step", "epoch", "training loss", "held-out loss", "held-out error", numeric=5
    )
    for record in report.retraining:
        training = "" if record["training_loss"] is None else f"{record['training_loss']:.4f}"
        error = "" if record["accuracy"] is None else f"{1 - record['accuracy']:.2%}"
        epochs.add_row(str(record["step"]), str(record["epoch"]), training, f"{record['loss']:.4f}", error)
    dense = [
        f"- {escape(layer.name)} stays dense: {escape(layer.note)}." for layer in report.layers if layer.note
    ]
    return Group(*([epochs] if report.retraining else []), *_left_alone(report.unprunable), *dense)


def inspection(source: Source, model: ir.Model, weights: Weights) -> RenderableType:
    """What goes in and out of a model, its weights, their density, and why some cannot be pruned."""
    title = f"{source.name}: {bytes_text(source.file_bytes)}, opset {model.opset_imports.get('', 'unknown')}"
    table = _table(title, "weight", "operator", "node", "shape", "weights", "non-zero", "density", numeric=4)
    for weight in weights.prunable:
        nonzero = weight.nonzero()
        names = escape(weight.name), weight.op_type, escape(", ".join(weight.node_names))
        numbers = f"{weight.size:,}", f"{nonzero:,}", f"{nonzero / max(weight.size, 1):.1%}"
        table.add_row(*names, shape_text(weight.shape), *numbers)
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    ends = [
        escape(f"{way} {_value_text(value)}")
        for way, values in (("in ", inputs), ("out", model.graph.outputs))
        for value in values
    ]
    return Group(*ends, table, *_left_alone(weights.unprunable))


def _value_text(value: ir.Value) -> str:
    """The name, type and dims of an input or output: x float32 [N, 8]."""
    dtype = "?" if value.dtype in (None, ir.DataType.UNDEFINED) else str(value.dtype.numpy())
    dims = "?" if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{value.name} {dtype} [{dims}]"


def _left_alone(operands: Sequence[Unprunable]) -> list[Table]:
    if not operands:
        return []
    table = _table("left as they are", "weight", "operator", "node", "why", numeric=0)
    for operand in operands:
        table.add_row(*map(escape, (operand.weight, operand.op_type, operand.node, operand.reason)))
    return [table]


def shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def bytes_text(count: int) -> str:
    """Bytes in decimal units: 1,070 kB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= 10 * size:
            return f"{count / size:,.0f} {unit}"
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def _table(title: str, *columns: str, numeric: int = 3) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(
            column, justify="right" if index >= len(columns) - numeric else "left", overflow="fold"
        )
    return table


def _layers(report: Report) -> Table:
    table = _table("", "weight", "operator", "shape", "kept / all", "removed", "bytes", numeric=3)
    for layer in report.layers:
        table.add_row(escape(layer.name), layer.op_type, _shape_change(layer), *_counts((layer,)))
    table.add_section()
    table.add_row("all", "", "", *_counts(report.layers))
    return table


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
    table = _table("", "", "before", "after", "", numeric=3)
    for row in _total_rows(report):
        table.add_row(*row)
    return table


def _total_rows(report: Report) -> Iterator[tuple[str, str, str, str]]:
    before, after = report.before, report.after
    yield (
        "parameters",
        f"{before.parameters:,}",
        f"{after.parameters:,}",
        _times(before.parameters, after.parameters),
    )
    yield "  not zero", f"{before.nonzero:,}", f"{after.nonzero:,}", _times(before.nonzero, after.nonzero)
    if before.multiply_adds:  # none where no shapes are known
        yield "multiply-adds", *_change(before.multiply_adds, after.multiply_adds)
        yield "  not by zero", *_change(before.nonzero_multiply_adds, after.nonzero_multiply_adds)
    units = [(layer["outputs_before"], layer["outputs_after"]) for layer in report.surgery.get("layers", ())]
    if units:
        yield "channels and neurons", *_change(sum(pair[0] for pair in units), sum(pair[1] for pair in units))
    yield "file", bytes_text(before.bytes), bytes_text(after.bytes), _times(before.bytes, after.bytes)
    yield from _evaluation_rows(report.evaluation)
    if report.old_evaluation is not None:
        for name, *cells in _evaluation_rows(report.old_evaluation):
            yield f"{name}, old data", cells[0], cells[1], cells[2]
    yield "time", "", f"{sum(report.seconds.values()):.1f} s", _slowest(report.seconds)


def _evaluation_rows(evaluation: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    if evaluation["before"] is not None:
        name = {"top-1": "top-1 error", "mse": "mean squared error"}[evaluation["before"]["name"]]
        yield name, _metric(evaluation["before"]), _metric(evaluation["after"]), ""
    for output in evaluation["outputs"]:
        agreement = "" if output["agreement"] is None else f", same top-1 {output['agreement']:.2%}"
        moved = f"cosine {output['cosine']:.4f}{agreement}"
        largest = f"largest difference {output['absolute']:.3g} (relative {output['relative']:.3g})"
        yield f"output {escape(output['output'])}", "", moved, largest


def _change(before: int, after: int) -> tuple[str, str, str]:
    return f"{before:,}", f"{after:,}", _times(before, after)


def _times(before: int, after: int) -> str:
    return f"{before / after:.1f}x smaller" if after else ""


def _metric(metric: dict[str, Any]) -> str:
    return f"{1 - metric['value']:.2%}" if metric["name"] == "top-1" else f"{metric['value']:.4g}"


def _slowest(seconds: dict[str, float]) -> str:
    stage, time = max(seconds.items(), key=lambda item: item[1])
    return f"{stage} {time:.1f} s"

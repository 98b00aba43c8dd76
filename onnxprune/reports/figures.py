"""The charts of the report: trade-off, sensitivity and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxprune.evaluation.metrics import METRICS
from onnxprune.reports.charts import SMALLEST, Axis, Chart
from onnxprune.reports.html import Cell, charts, paragraph, section, table
from onnxprune.reports.plots import plot
from onnxprune.reports.record import DRAWN_CURVES
from onnxprune.reports.scales import LOGARITHMIC, WHOLE
from onnxprune.reports.sweep import compression
from onnxprune.reports.text import bytes_text

EPOCH = Axis("epoch", scale=WHOLE)


def tradeoff(record: Mapping[str, Any]) -> str:
    """The trials of a search: compression against the metric, the Pareto frontier, and the chosen one."""
    trials = sorted(record.get("trials") or (), key=lambda trial: trial["rate"])
    if not trials:
        return ""
    name = trials[0]["metric"]
    metric = METRICS.get(name)
    as_error = metric is not None and metric.as_error
    label = f"{'error' if as_error else name if metric is None else metric.title} on validation data"

    def error(trial: Mapping[str, Any]) -> float:
        return 1 - trial["value"] if as_error else trial["value"]

    value_format = "{:.4g}" if metric is None else metric.format
    text = value_format.format

    points = [(compression(trial["rate"]), error(trial)) for trial in trials]
    # Only trials that no other dominates keep their models.
    frontier = [point for point, trial in zip(points, trials, strict=True) if trial["model"]]
    chosen = [point for point, trial in zip(points, trials, strict=True) if trial["chosen"]]
    lines = {"best trials": frontier, "trial": points} | ({"chosen": chosen} if chosen else {})
    chart = Chart(
        lines,
        Axis("compression (weights / remaining weights)", "{:.4g}x", LOGARITHMIC),
        Axis(label, value_format),
        dots=("trial", "chosen"),
    )
    rows = [
        [
            Cell(f"{trial['rate']:.2%}", trial["rate"]),
            Cell(f"{trial['kept']:,}", trial["kept"]),
            Cell(bytes_text(trial["size"]), trial["size"]),
            Cell(text(error(trial)), error(trial)),
            Cell(f"{trial['seconds']:.0f} s", trial["seconds"]),
            Cell("chosen" if trial["chosen"] else ""),
        ]
        for trial in trials
    ]
    headings = ("rate", "kept weights", "file size", label, "time", "")
    return section("Trade-off between rate and accuracy", charts([plot(chart)]) + table(headings, rows))


def sensitivity(record: Mapping[str, Any]) -> str:
    """The deviation of the outputs when one weight is pruned, on a logarithmic axis."""
    curves = record.get("sensitivity") or {}
    if not curves:
        return ""
    most = sorted(curves, key=lambda name: -max(deviation for _, deviation in curves[name]))[:DRAWN_CURVES]
    lines = {
        name: [(rate, max(deviation, SMALLEST)) for rate, deviation in curve]
        for name, curve in curves.items()
        if name in most
    }
    chart = Chart(
        lines,
        Axis("rate (fraction removed)", "{:.0%}"),
        Axis("deviation of the outputs", "{:.0e}", LOGARITHMIC),
    )
    text = (
        "The deviation |y - y0|² / |y0|² of the outputs when one weight is pruned and all others are not. The rate was "
        "distributed over the layers by it."
    )
    if len(curves) > len(lines):
        text += f" The chart shows the {len(lines)} most sensitive of {len(curves)} weights."
    return section("Sensitivity", paragraph(text) + charts([plot(chart)]))


def fine_tuning(record: Mapping[str, Any]) -> str:
    """Loss, metric and rate over the epochs."""
    epochs = record.get("fine_tuning") or ()
    losses = {
        "validation": [(epoch["epoch"], epoch["loss"]) for epoch in epochs],
        "training": [
            (epoch["epoch"], epoch["training_loss"]) for epoch in epochs if epoch["training_loss"] is not None
        ],
    }
    scores = [(epoch["epoch"], epoch["score"]) for epoch in epochs if epoch["score"] is not None]
    figures = []
    if epochs:
        drawn = {name: line for name, line in losses.items() if line}
        figures.append(plot(Chart(drawn, EPOCH, Axis("loss", "{:.3g}", from_zero=True))))
    if scores:
        name = next(epoch["metric"] for epoch in epochs if epoch["score"] is not None)
        metric = METRICS.get(name)
        title, shown = (name, "{:.3g}") if metric is None else (metric.title, metric.format)
        as_error = metric is not None and metric.as_error
        if as_error:
            scores = [(epoch, 1 - score) for epoch, score in scores]
        figures.append(
            plot(Chart({"validation": scores}, EPOCH, Axis(f"validation {title}", shown, from_zero=as_error)))
        )
    rates = [(epoch["epoch"], epoch["rate"]) for epoch in epochs if epoch.get("rate") is not None]
    if len({rate for _, rate in rates}) > 1:
        figures.append(
            plot(Chart({"rate": rates}, EPOCH, Axis("rate (fraction removed)", "{:.1%}", from_zero=True)))
        )
    return section("Fine-tuning", charts(figures)) if figures else ""

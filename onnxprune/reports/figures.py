"""The charts of the page: the trade-off, sensitivities, training, and how the weights are spread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from onnxprune.evaluation.metrics import METRICS
from onnxprune.reports.charts import SMALLEST, histogram, line_chart
from onnxprune.reports.html import charts, paragraph, section, table
from onnxprune.reports.record import BEFORE, DRAWN_CURVES
from onnxprune.reports.text import bytes_text


def tradeoff(record: Mapping[str, Any]) -> str:
    """Every trial of a search: what it removed against its loss, a line through the best, the chosen one marked."""
    trials = sorted(record.get("trials") or (), key=lambda trial: trial["rate"])
    if not trials:
        return ""
    name = trials[0]["metric"]
    falling = name in METRICS and METRICS[name].fraction
    label = "error on validation data" if falling else name

    def loss(trial: Mapping[str, Any]) -> float:
        return 1 - trial["value"] if falling else trial["value"]

    def text(value: float) -> str:
        return f"{value:.2%}" if falling else f"{value:.4g}"

    # Rates crowd near 1: the axis is of halvings of the weights.
    points = [(-math.log2(1 - trial["rate"]), loss(trial)) for trial in trials]
    # Only those that no other beats keep their models.
    best = [point for point, trial in zip(points, trials, strict=True) if trial["model"]]
    chosen = [point for point, trial in zip(points, trials, strict=True) if trial["chosen"]]
    lines = {"the best of them": best, "a trial": points} | ({"chosen": chosen} if chosen else {})
    chart = line_chart(
        lines,
        "times fewer weights",
        label,
        lambda halvings: f"{2**halvings:.3g}x",
        text,
        from_zero=False,
        dots=("a trial", "chosen"),
    )
    rows = [
        [
            (f"{trial['rate']:.2%}", trial["rate"]),
            (f"{trial['kept']:,}", trial["kept"]),
            (bytes_text(trial["size"]), trial["size"]),
            (text(loss(trial)), loss(trial)),
            (f"{trial['seconds']:.0f} s", trial["seconds"]),
            ("chosen" if trial["chosen"] else "", None),
        ]
        for trial in trials
    ]
    return section("Trade-off", charts([chart]) + table(("rate", "kept", "file", label, "time", ""), rows))


def sensitivity(record: Mapping[str, Any]) -> str:
    """How far the outputs move when one weight alone is pruned, on an axis of powers of ten."""
    curves = record.get("sensitivity") or {}
    if not curves:
        return ""
    most = sorted(curves, key=lambda name: -max(deviation for _, deviation in curves[name]))[:DRAWN_CURVES]
    lines = {
        name: [(rate, math.log10(max(deviation, SMALLEST))) for rate, deviation in curve]
        for name, curve in curves.items()
        if name in most
    }
    chart = line_chart(
        lines,
        "rate (fraction removed)",
        "deviation of the outputs",
        "{:.0%}".format,
        lambda power: f"{10**power:.0e}",
    )
    text = "Each weight pruned alone: |y - y0|² / |y0|² of the outputs. The rate was shared out by this."
    if len(curves) > len(lines):
        text += f" The {len(lines)} that move them most of {len(curves)}."
    return section("Sensitivity", paragraph(text) + charts([chart]))


def fine_tuning(record: Mapping[str, Any]) -> str:
    """Loss and error over the epochs."""
    epochs = record.get("fine_tuning") or ()
    losses = {
        "validation": [(epoch["epoch"], epoch["loss"]) for epoch in epochs],
        "training": [
            (epoch["epoch"], epoch["training_loss"]) for epoch in epochs if epoch["training_loss"] is not None
        ],
    }
    errors = [(epoch["epoch"], 1 - epoch["accuracy"]) for epoch in epochs if epoch["accuracy"] is not None]
    figures = []
    if epochs:
        figures.append(line_chart({name: line for name, line in losses.items() if line}, "epoch", "loss"))
    if errors:
        figures.append(
            line_chart({"validation": errors}, "epoch", "validation error", format_y="{:.2%}".format)
        )
    return section("Fine-tuning", charts(figures)) if figures else ""


def histograms(record: Mapping[str, Any]) -> str:
    """The distribution of each weight before pruning, after it, and after fine-tuning."""
    weights = record.get("histograms") or {}
    figures = [
        f"<figcaption>{escape(name)}</figcaption>{histogram(parts['edges'], parts['counts'])}"
        for name, parts in weights.items()
    ]
    text = "How many weights have which value, those that are zero left out"
    if any(BEFORE in parts["counts"] for parts in weights.values()):
        text += (
            ": before pruning; after pruning, the remaining ones with the values that they had; and after fine-tuning "
            "or calibration"
        )
    return section("Weights", paragraph(f"{text}.") + charts(figures)) if figures else ""

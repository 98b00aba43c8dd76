"""The trade-off of a sweep: the metric over how much is removed, with the spread over the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune.config.pruning import AMOUNTS
from onnxprune.errors import OutputError
from onnxprune.evaluation.metrics import METRICS
from onnxprune.reports.publishing import published
from onnxprune.reports.spread_chart import Point, spread_chart
from onnxprune.system.files import write_text

CHART = "tradeoff.svg"
SMALLEST_DENSITY = 1e-6


def write_tradeoff(folder: Path, sweep: Mapping[str, Any]) -> None:
    """Write the chart of `Sweep.to_dict()` to a folder.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        write_text(folder / CHART, tradeoff_chart(sweep) + "\n")
    except OSError as error:
        raise OutputError(f"{folder / CHART} cannot be written: {error.strerror}") from error


def tradeoff_chart(sweep: Mapping[str, Any]) -> str:
    """A curve for each combination of the settings that are no amounts; each point is the mean over the seeds."""
    combinations = [each for each in sweep["combinations"] if "mean" in each]
    name = combinations[0]["metric"]
    metric = METRICS.get(name)
    title = name if metric is None else metric.title
    text = "{:.4g}".format if metric is None else metric.format.format

    def shown(value: float) -> float:
        return 1 - value if metric is not None and metric.as_error else value

    curves: dict[str, list[Point]] = {}
    for each in combinations:
        mean, deviation = each["mean"], each["deviation"]["value"]
        point = Point(compression(mean["rate"]), shown(mean["value"]), deviation or 0.0)
        curves.setdefault(label_of(_shown(each["values"])), []).append(point)
    baseline = shown(sum(each["mean"]["baseline"] for each in combinations) / len(combinations))
    seeds = len(sweep["seeds"])
    spread = f", mean and standard deviation of {seeds} seeds" if seeds > 1 else ""
    return spread_chart(
        curves,
        "compression (weights / remaining weights)",
        f"{title} on validation data{spread}",
        "{:g}x".format,
        text,
        level=("input model", baseline),
    )


def _shown(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a combination as they may leave the machine."""
    shown: Mapping[str, Any] = published({"settings": dict(values)})["settings"]
    return shown


def label_of(values: Mapping[str, Any]) -> str:
    """The values of a combination that its curve is named by; numbers with the name of their setting."""
    texts = [
        f"{name} {value_text(value)}" if isinstance(value, bool | int | float) else value_text(value)
        for name, value in values.items()
        if name not in AMOUNTS
    ]
    return ", ".join(texts) or "pruned"


def value_text(value: Any) -> str:
    """The value of a setting in a table or a label."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        texts = ["=".join(map(value_text, each)) if isinstance(each, list) else str(each) for each in value]
        return " + ".join(texts) or "none"
    return str(value)


def compression(rate: float) -> float:
    """Weights for each remaining weight: high rates are close to 1, so charts are logarithmic in the density."""
    return 1 / max(1 - rate, SMALLEST_DENSITY)

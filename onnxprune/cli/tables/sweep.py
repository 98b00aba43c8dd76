"""The combinations of a sweep as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text

from onnxprune.cli.tables.common import table
from onnxprune.evaluation.metrics import METRICS, drop_text, score_text, score_title
from onnxprune.reports.sweep import value_text
from onnxprune.reports.text import bytes_text

MEASURED = ("kept", "file", "metric", "drop", "seconds", "")


def sweep_tables(sweep: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The table of `Sweep.to_dict()`, by rate and then by drop; why runs failed; and the file that was written."""
    axes, seeds = list(sweep["axes"]), sweep["seeds"]
    rate = [] if "rate" in axes else ["rate"]
    runs = len(sweep["combinations"]) * len(seeds)
    title = f"{len(sweep['combinations'])} combinations, {runs} runs"
    if len(seeds) > 1:
        title += f": mean ± standard deviation over {len(seeds)} seeds"
    made = table(title, *axes, *rate, *MEASURED, numeric=len(MEASURED) + len(rate))
    for each in sorted(sweep["combinations"], key=_order):
        values = [escape(value_text(each["values"][axis])) for axis in axes]
        made.add_row(*values, *_measured(each, bool(rate), len(seeds)))
    yield made
    for each in sweep["combinations"]:
        for error in each["errors"]:
            pairs = ", ".join(f"{name} {value_text(value)}" for name, value in each["values"].items())
            yield Text(f"failed ({pairs}): {error}" if pairs else f"failed: {error}")
    if sweep["output"] is not None:
        yield Text(_written(sweep))


def _order(combination: Mapping[str, Any]) -> tuple[float, float]:
    mean = combination.get("mean")
    return (round(mean["rate"], 3), mean["drop"]) if mean else (1.0, 0.0)


def _measured(each: Mapping[str, Any], with_rate: bool, seeds: int) -> list[str]:
    """The cells of what was measured; empty ones if all runs failed."""
    seconds, failed = f"{each['seconds']:.1f}", f"{each['failed']} of {seeds} failed"
    mark = "chosen" if each["chosen"] else failed if each["failed"] else ""
    if "mean" not in each:
        return [""] * (with_rate + 4) + [seconds, mark]
    mean, deviation, metric = each["mean"], each["deviation"], METRICS.get(each["metric"])

    def spread(name: str, text: str, of_deviation: Any) -> str:
        return text if deviation[name] is None else f"{text} ± {of_deviation(deviation[name])}"

    value = f"{mean['value']:.4g}" if metric is None else metric.text(mean["value"])
    title = each["metric"] if metric is None else metric.title

    def unit(number: float) -> str:
        return drop_text(each["metric"], number)

    return [
        *([f"{mean['rate']:.2%}"] if with_rate else []),
        f"{mean['kept']:,.0f}",
        bytes_text(round(mean["bytes"])),
        f"{title} {spread('value', value, unit)}",
        spread("drop", unit(mean["drop"]), unit),
        seconds,
        mark,
    ]


def _written(sweep: Mapping[str, Any]) -> str:
    """The file that was written, and its score on the test data."""
    text = f"{sweep['output']} is {sweep['chosen']}"
    evaluation = sweep["evaluation"]
    if evaluation is None:
        return f"{text}; give --eval-data for a figure that no choice has used."
    on = f"on {evaluation['samples']:,} samples of {evaluation['data']}"
    if evaluation["baseline"] is None:
        return f"{text}: it differs from the input model by {evaluation['drop_text']} {on}."
    old, new = score_text(evaluation["baseline"]), score_text(evaluation["pruned"])
    return f"{text}: {score_title(evaluation['baseline'])} {old} -> {new} {on}."

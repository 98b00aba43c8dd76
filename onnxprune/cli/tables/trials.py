"""The trials of a search as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from onnxprune.cli.tables.common import table
from onnxprune.evaluation.metrics import METRICS
from onnxprune.reports.text import bytes_text

HEADINGS = ("rate", "compression", "kept", "file", "epochs", "seconds", "metric", "drop", "+-", "")


def trials_table(trials: Sequence[Mapping[str, Any]]) -> Table:
    """The trials of `Report.trials` by rate; the models of "dominated" ones (Pareto) are deleted."""
    made = table("trials", *HEADINGS, numeric=len(HEADINGS))
    for trial in sorted(trials, key=lambda trial: (trial["rate"], trial["number"])):
        error, dominated = trial["drop_error"], trial["model"] is None
        metric = METRICS.get(trial["metric"])
        value, drop = (
            ("{:.4g}".format, "{:.2%}".format) if metric is None else (metric.text, metric.drop_text)
        )
        made.add_row(
            f"{trial['rate']:.2%}",
            f"{1 / (1 - trial['rate']):.1f}x",
            f"{trial['kept']:,}",
            bytes_text(trial["size"]),
            str(trial["epochs"]),
            f"{trial['seconds']:.0f}",
            f"{trial['metric'] if metric is None else metric.title} {value(trial['value'])}",
            drop(trial["drop"]),
            "" if error is None else drop(error),
            "chosen" if trial["chosen"] else "dominated" if dominated else "",
        )
    return made

"""The trials of a search as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from onnxprune.cli.tables.common import table
from onnxprune.reports.text import bytes_text

HEADINGS = ("rate", "compression", "kept", "file", "epochs", "seconds", "metric", "drop", "+-", "")


def trials_table(trials: Sequence[Mapping[str, Any]]) -> Table:
    """The trials of `Report.trials` by rate; the models of "dominated" ones (Pareto) are deleted."""
    made = table("trials", *HEADINGS, numeric=len(HEADINGS))
    for trial in sorted(trials, key=lambda trial: (trial["rate"], trial["number"])):
        error, dominated = trial["drop_error"], trial["model"] is None
        made.add_row(
            f"{trial['rate']:.2%}",
            f"{1 / (1 - trial['rate']):.1f}x",
            f"{trial['kept']:,}",
            bytes_text(trial["size"]),
            str(trial["epochs"]),
            f"{trial['seconds']:.0f}",
            f"{trial['metric']} {trial['value']:.4g}",
            f"{trial['drop']:.2%}",
            "" if error is None else f"{error:.2%}",
            "chosen" if trial["chosen"] else "dominated" if dominated else "",
        )
    return made

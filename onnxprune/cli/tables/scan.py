"""A sensitivity scan as a table for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from onnxprune.pruning.sensitivity import Scan


def scan_table(found: Scan) -> Table:
    """The error where there are labels of classes, else the deviation of the outputs, of each weight at each rate."""
    names = ", ".join(map(escape, found.about["compared"]))
    measured = "error" if found.scored else f"deviation |y - y0|² / |y0|² of {names}"
    table = Table(
        title=f"{measured}, one weight pruned at a time, {found.about['samples']:,} samples",
        title_justify="left",
    )
    table.add_column("weight", overflow="fold")
    for rate in found.about["rates"]:
        table.add_column(f"{rate:.0%}", justify="right")
    for name, losses in found.layers.items():
        cells = [
            f"{error:.2%}" if error is not None else f"{deviation:.2g}"
            for _, (deviation, error) in sorted(losses.items())
        ]
        table.add_row(escape(name), *cells)
    return table

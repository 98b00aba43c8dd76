"""Two models compared, as a table for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from onnxprune.evaluation.comparison import Evaluation, Tolerance


def comparison_table(evaluation: Evaluation, tolerance: Tolerance) -> Table:
    """A row an output, with what lies beyond the tolerance."""
    table = Table(
        title=f"on {evaluation.data}, {evaluation.samples:,} samples; allowed: "
        f"{tolerance.absolute:g} + {tolerance.relative:g} x |first|",
        title_justify="left",
    )
    for heading in ("output", "beyond / all", "largest difference", "relative", "cosine", ""):
        table.add_column(heading, justify="left" if heading in ("output", "") else "right")
    for output in evaluation.outputs:
        table.add_row(
            escape(output.output),
            f"{output.beyond:,} / {output.elements:,}",
            f"{output.absolute:.3g}",
            f"{output.relative:.3g}",
            f"{output.cosine:.6f}",
            "differs" if output.beyond else "same",
        )
    return table

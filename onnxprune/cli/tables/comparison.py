"""The comparison of two models as a table for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from onnxprune.evaluation.comparison import Evaluation, Tolerance


def comparison_table(evaluation: Evaluation, tolerance: Tolerance) -> Table:
    """One row per output: mismatched elements, differences, cosine similarity."""
    table = Table(
        title=f"on {evaluation.data}, {evaluation.samples:,} samples; tolerance "
        f"{tolerance.absolute:g} + {tolerance.relative:g} * |A|",
        title_justify="left",
    )
    for heading in ("output", "mismatched / all", "largest difference", "relative", "cosine", ""):
        table.add_column(heading, justify="left" if heading in ("output", "") else "right")
    for output in evaluation.outputs:
        table.add_row(
            escape(output.output),
            f"{output.mismatched:,} / {output.elements:,}",
            f"{output.absolute:.3g}",
            f"{output.relative:.3g}",
            f"{output.cosine:.6f}",
            "differs" if output.mismatched else "same",
        )
    return table

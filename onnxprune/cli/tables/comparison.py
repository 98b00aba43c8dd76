"""The comparison of two models as a table for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from onnxprune.cli.tables import common
from onnxprune.evaluation.comparison import Evaluation, OutputDifference, Tolerance
from onnxprune.reports.summary import score_texts


def comparison_table(evaluation: Evaluation, tolerance: Tolerance) -> RenderableType:
    """One row per output: mismatched elements, differences, cosine similarity; then the scores of both models."""
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
            *_distances(output),
            escape(output.unlike)
            or ("differs" if output.mismatched else "same" if output.elements else "no elements"),
        )
    parts: list[RenderableType] = [table]
    if evaluation.draws:
        parts.append(escape(evaluation.draws))
    if not evaluation.scores:
        return Group(*parts)
    scores = common.table("", "metric", "A", "B", numeric=2)
    for title, *texts in score_texts(evaluation.to_dict()):
        scores.add_row(escape(title), *texts)
    return Group(*parts, scores)


def _distances(output: OutputDifference) -> tuple[str, str, str]:
    """The largest difference, absolute and relative, and the cosine; none of outputs that have no common shape."""
    if output.unlike:
        return "", "", ""
    return f"{output.absolute:.3g}", f"{output.relative:.3g}", f"{output.cosine:.6f}"

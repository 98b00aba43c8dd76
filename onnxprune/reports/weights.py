"""The weights in the report: where they are not zero, and how their values are distributed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnxprune.reports.charts import histogram
from onnxprune.reports.html import caption, charts, details, paragraph, picture, section
from onnxprune.reports.maps import PART
from onnxprune.reports.plots import plot
from onnxprune.reports.record import BASELINE

# Figures that are shown at once; the others open by a click, if they are more than a few.
SHOWN, FEW = 6, 2
# Room for a picture, in CSS pixels.
ACROSS, HIGH = 320, 200


def maps(record: Mapping[str, Any]) -> str:
    """Pictures of the pattern of the largest pruned weights."""
    found = record.get("maps") or {}
    figures = [figure for name, parts in found.items() for figure in _map_figures(name, parts)]
    if not figures:
        return ""
    text = (
        "Each row is an output, each column an input (in a convolution the inputs of one kernel position after the "
        "other). Colored: not zero. A cell of a downsampled picture is the stronger the more of its weights are kept."
    )
    return section("Sparsity patterns", paragraph(text) + _folded(figures))


def _map_figures(name: str, parts: Mapping[str, Any]) -> Iterator[str]:
    (rows, columns), (rows_before, columns_before) = parts["shape"], parts["before"]
    removed = ""
    if (rows, columns) != (rows_before, columns_before):
        removed = f"; removed from {rows_before:,} x {columns_before:,}: drawn empty, below and on the right"
    scale = "" if not parts["part"] else f"; densest cell: {parts['densest']:.1%} kept"
    yield caption(name, f"{rows:,} outputs x {columns:,} inputs{scale}{removed}") + _picture(
        parts["whole"], parts["cells"], f"where {name} is not zero"
    )
    if parts["part"]:
        cells = min(rows, PART[0]), min(columns, PART[1])
        note = f"{cells[0]} outputs x {cells[1]} inputs in the middle, weight by weight"
        yield caption(name, note) + _picture(parts["part"], cells, f"where a part of {name} is not zero")


def _picture(png: str, cells: Sequence[int], text: str) -> str:
    enlarged = max(1, min(ACROSS // max(cells[1], 1), HIGH // max(cells[0], 1)))
    return picture(png, text, cells[1] * enlarged)


def histograms(record: Mapping[str, Any]) -> str:
    """The distribution of each weight: baseline, remaining weights, and after fine-tuning; pruned ones come first."""
    weights = record.get("histograms") or {}
    layers = {layer["name"]: layer for layer in record["layers"]}

    def rank(name: str) -> tuple[bool, int]:
        layer = layers.get(name, {"kept": 0, "size": 0})
        return layer["kept"] == layer["size"], -layer["size"]

    figures = [
        caption(name) + plot(histogram(weights[name]["edges"], weights[name]["counts"]))
        for name in sorted(weights, key=rank)
    ]
    if not figures:
        return ""
    text = "Histograms of the non-zero weights."
    if any(BASELINE in parts["counts"] for parts in weights.values()):
        text += (
            " Baseline: all weights of the input model. Remaining: the weights that pruning keeps, with their values "
            "in the input model. Fine-tuned: the same weights after fine-tuning or calibration."
        )
    return section("Distribution of the weights", paragraph(text) + _folded(figures))


def _folded(figures: Sequence[str]) -> str:
    """The first figures, and the others behind a click."""
    if len(figures) <= SHOWN + FEW:
        return charts(figures)
    more = figures[SHOWN:]
    return charts(figures[:SHOWN]) + details(f"{len(more)} more", charts(more))

"""The picture of a graph: a box for each node from top to bottom, and lines at the left for what skips boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from onnxprune.errors import some
from onnxprune.reports.charts import shortened
from onnxprune.reports.graph import INPUT, NEW, OUTPUT, PRUNED, SMALLER
from onnxprune.reports.html import items, paragraph, section

WIDTH, MARGIN = 400, 6
GAP, PADDING, LINE = 16, 6, 15
# Between two lines at the left; more than so many share the last place.
LANE, MOST_LANES = 9, 10
# Widths of a letter of an operator, and of other texts.
BOLD, LETTER = 7.6, 6.3
LEGEND = (
    (PRUNED, "weights pruned"),
    (SMALLER, "fewer channels"),
    (NEW, "new or another operator"),
    ("unchanged", "unchanged"),
)


def graph(record: Mapping[str, Any]) -> str:
    """The graph of the file, as a viewer would show it, with what changed."""
    view = record.get("graph") or {}
    if not view:
        return ""
    keys = "".join(f'<span class="key {kind}">{escape(text)}</span>' for kind, text in LEGEND)
    return section(
        "Graph",
        paragraph(
            f"The {view['nodes']:,} nodes of the file in the order in which they run. At the right: the shape of what "
            "each of them gives."
        )
        + f'<p class="dim">{keys}</p><div class="graph">{_svg(view)}</div>'
        + items(_notes(view)),
    )


def _notes(view: Mapping[str, Any]) -> Iterator[str]:
    if view["left_out"]:
        yield f"{view['left_out']:,} more boxes follow below the last one."
    if view["gone"]:
        names = some([f"{operator} {name}".strip() for operator, name in view["gone"]])
        yield f"Nodes of the input model whose work others do now, or which nothing reads: {names}."


def _svg(view: Mapping[str, Any]) -> str:
    boxes, edges = view["boxes"], view["edges"]
    lanes = _lanes(edges)
    left = MARGIN + LANE * (max(lanes.values(), default=-1) + 2)
    tops, bottom = _tops(boxes)
    parts = [
        *_lines(edges, lanes, tops, [_height(box) for box in boxes], left),
        *(_drawn(box, top, left) for box, top in zip(boxes, tops, strict=True)),
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {bottom}" role="img" aria-label="graph of the pruned model">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
        'orient="auto"><path d="M0 0L8 4L0 8Z" fill="currentColor"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def _lanes(edges: Sequence[Sequence[int]]) -> dict[int, int]:
    """Where the line of each box is that others than the next one read: 0 is nearest to the boxes."""
    last: dict[int, int] = {}
    for start, end in edges:
        if end > start + 1:
            last[start] = max(last.get(start, end), end)
    lanes: dict[int, int] = {}
    ends: list[int] = []
    for start in sorted(last):
        free = next((lane for lane, end in enumerate(ends) if end <= start), len(ends))
        lane = min(free, MOST_LANES - 1)
        ends[lane : lane + 1] = [last[start]]
        lanes[start] = lane
    return lanes


def _rows(box: Mapping[str, Any]) -> int:
    return 1 + bool(box["name"] or box["shape_before"]) + bool(box["weight"])


def _height(box: Mapping[str, Any]) -> int:
    return 2 * PADDING + LINE * _rows(box)


def _tops(boxes: Sequence[Mapping[str, Any]]) -> tuple[list[int], int]:
    tops, y = [], MARGIN
    for box in boxes:
        tops.append(y)
        y += _height(box) + GAP
    return tops, y - GAP + MARGIN


def _lines(
    edges: Sequence[Sequence[int]],
    lanes: Mapping[int, int],
    tops: Sequence[int],
    heights: Sequence[int],
    left: int,
) -> Iterator[str]:
    """Arrows to the next box in the middle, those to later boxes at the left."""
    middle = (left + WIDTH - MARGIN) / 2
    for start, end in edges:
        low = tops[start] + heights[start]
        if end == start + 1:
            path = f"M{middle:.0f} {low}V{tops[end] - 1}"
        else:
            x = left - LANE * (lanes[start] + 1)
            path = f"M{left} {low - PADDING}H{x}V{tops[end] + PADDING + 4}H{left - 1}"
        yield f'<path d="{path}" marker-end="url(#arrow)"/>'


def _drawn(box: Mapping[str, Any], top: int, left: int) -> str:
    right = WIDTH - MARGIN
    room = right - left - 2 * PADDING
    operator = box["operator"]
    if box["operator_before"]:
        operator = f"{box['operator_before']} → {operator}"
    removed = "" if box["removed"] is None else f"{box['removed']:.1%} removed"
    rows = (
        (operator, box["shape"], "operator", BOLD),
        (box["name"], f"was {box['shape_before']}" if box["shape_before"] else "", "dim", LETTER),
        (box["weight"], removed, "", LETTER),
    )
    texts, y = [], top + PADDING - 4
    for begin, end, style, letter in rows:
        if not (begin or end):
            continue
        y += LINE
        space = int((room - LETTER * (len(end) + 2)) / letter)
        texts.append(
            f'<text x="{left + PADDING}" y="{y}" class="{style}">{escape(shortened(begin, space))}</text>'
            f'<text x="{right - PADDING}" y="{y}" text-anchor="end">{escape(end)}</text>'
        )
    corner = 12 if box["kind"] in (INPUT, OUTPUT) else 4
    tip = ": ".join(filter(None, (operator, box["name"])))
    return (
        f'<g class="{box["kind"] or "unchanged"}"><title>{escape(tip)}</title>'
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{_height(box)}" rx="{corner}"/>'
        f"{''.join(texts)}</g>"
    )

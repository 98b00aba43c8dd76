"""An SVG chart of curves with error bars, each labeled where it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from onnxprune.reports.charts import COLORS, DASHES, STYLE, text_element
from onnxprune.reports.scales import log_ticks, ticks_between

WIDTH, HEIGHT = 720, 360
LEFT, TOP, BOTTOM = 74, 30, 46
# Width of a label's letter, distance of two labels, and of the ticks of the horizontal axis, at 12 px.
LETTER, LABEL_LINE, TICK_LETTER = 6.6, 16, 8
LEADER = 26
CAP = 3


class Point(NamedTuple):
    """A mean at a positive x, and how far its error bar reaches to both sides."""

    x: float
    mean: float
    spread: float


def spread_chart(
    curves: Mapping[str, Sequence[Point]],
    x_label: str,
    title: str,
    format_x: Callable[[float], str],
    format_y: Callable[[float], str],
    level: tuple[str, float],
) -> str:
    """A self-contained `<svg>` element, for light and dark mode; the x axis is logarithmic.

    `level`: the name and the height of a dashed line across.
    """
    points = [point for curve in curves.values() for point in curve if math.isfinite(point.mean)]
    names = [*curves, level[0]]
    right = LEADER + LETTER * max(map(len, names)) + 12
    height = max(HEIGHT, TOP + BOTTOM + LABEL_LINE * (len(names) + 1))
    heights = [level[1], *(point.mean + side * point.spread for point in points for side in (-1, 1))]
    shown = [value for value in heights if math.isfinite(value)] or [0.0]
    ticks = ticks_between(min(shown), max(shown))
    low_x, high_x = _padded([point.x for point in points])
    first_x, last_x = math.log(low_x), math.log(high_x)

    def across(x: float) -> float:
        return LEFT + (math.log(x) - first_x) / (last_x - first_x) * (WIDTH - LEFT - right)

    def up(y: float) -> float:
        return TOP + (ticks[-1] - y) / (ticks[-1] - ticks[0]) * (height - TOP - BOTTOM)

    edge = WIDTH - right
    parts = [text_element(8, 16, title, "start")]
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {up(tick):.1f}H{edge:.1f}" stroke="currentColor" opacity=".15"/>')
        parts.append(text_element(LEFT - 6, up(tick) + 4, format_y(tick), "end"))
    last = -math.inf
    for tick in log_ticks(low_x, high_x):
        label, place = format_x(tick), across(tick)
        parts.append(f'<path d="M{place:.1f} {height - BOTTOM}v4" stroke="currentColor" opacity=".5"/>')
        if place - last >= TICK_LETTER * (len(label) + 1):
            parts.append(text_element(place, height - BOTTOM + 18, label, "middle"))
            last = place
    parts.append(text_element((LEFT + edge) / 2, height - 8, x_label, "middle"))
    ends = {level[0]: (edge, up(level[1]))}
    parts.append(
        f'<path d="M{LEFT} {up(level[1]):.1f}H{edge:.1f}" stroke="currentColor" stroke-dasharray="4 4"/>'
    )
    strokes = {level[0]: 'stroke="currentColor" stroke-width="1"'}
    for index, (name, curve) in enumerate(curves.items()):
        dashes = DASHES[index // len(COLORS) % len(DASHES)]
        strokes[name] = f'stroke="{COLORS[index % len(COLORS)]}" stroke-width="2"'
        # Bars of one rate stand side by side.
        shift = 4 * (index - (len(curves) - 1) / 2) if len(curves) > 1 else 0.0
        shift = max(-12.0, min(12.0, shift))
        places = [(across(point.x) + shift, point) for point in sorted(curve) if math.isfinite(point.mean)]
        if not places:
            continue
        line = "L".join(f"{place:.1f} {up(point.mean):.1f}" for place, point in places)
        parts.append(f'<path d="M{line}" {strokes[name]} stroke-dasharray="{dashes}" fill="none"/>')
        parts += [
            _mark(place, point, up, COLORS[index % len(COLORS)], name, format_y) for place, point in places
        ]
        ends[name] = places[-1][0], up(places[-1][1].mean)
    labels = spaced([end for _, end in ends.values()], TOP + 6, height - BOTTOM - 6)
    for (name, (x, y)), label_y in zip(ends.items(), labels, strict=True):
        parts.append(
            f'<path d="M{x + 5:.1f} {y:.1f}L{edge + LEADER - 4:.1f} {label_y:.1f}" {strokes[name]} opacity=".6" '
            'fill="none"/>'
        )
        parts.append(text_element(edge + LEADER, label_y + 4, name, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)} against {escape(x_label)}"><style>{STYLE}</style>{"".join(parts)}</svg>'
    )


def _mark(
    x: float,
    point: Point,
    up: Callable[[float], float],
    color: str,
    name: str,
    format_y: Callable[[float], str],
) -> str:
    """A point with its error bar, and its values as a tooltip."""
    values = f"{name}: {format_y(point.mean)}"
    bar = ""
    if point.spread > 0:
        values += f" ± {format_y(point.spread)}"
        high, low = up(point.mean + point.spread), up(point.mean - point.spread)
        caps = "".join(f"M{x - CAP:.1f} {y:.1f}h{2 * CAP}" for y in (high, low))
        bar = f'<path d="M{x:.1f} {high:.1f}V{low:.1f}{caps}" stroke="{color}" stroke-width="1.5"/>'
    dot = f'<circle cx="{x:.1f}" cy="{up(point.mean):.1f}" r="4" fill="{color}"/>'
    return f"<g><title>{escape(values)}</title>{bar}{dot}</g>"


def spaced(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """The heights, moved as little as needed to be `LABEL_LINE` apart, between `top` and `bottom`."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed, least = {}, top
    for index in order:
        placed[index] = max(heights[index], least)
        least = placed[index] + LABEL_LINE
    most = bottom
    for index in reversed(order):
        placed[index] = min(placed[index], most)
        most = placed[index] - LABEL_LINE
    return [placed[index] for index in range(len(heights))]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest of positive values, with room to both sides on a logarithmic axis."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    room = (high / low) ** 0.05 if high > low else 1.4
    return low / room, high * room

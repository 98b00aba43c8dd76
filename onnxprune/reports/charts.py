"""Charts: what they show, and their SVG, which needs no script and nothing else, in light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from onnxprune.reports.scales import LINEAR, LOGARITHMIC, ROOT, Scale, within

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 66, 20, 12, 44
LEGEND_LINE = 16
# Width of a letter at 12 px, and of the sample of a line with the room around it.
LETTER, SAMPLE = 6.6, 46
# Distinguishable for color-blind readers (Okabe and Ito 2008); dashes distinguish lines of one color.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "6 3", "2 2", "8 3 2 3")
# The smallest value on logarithmic axes.
SMALLEST = 1e-9

STYLE = """svg{color-scheme:light dark;color:#222;font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{color:#ddd}}"""

Line = Sequence[tuple[float, float]]
Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """What an axis shows; `format`: of its values, for `str.format`; `from_zero`: a linear one starts at 0."""

    label: str
    format: str = "{:.4g}"
    scale: Scale = LINEAR
    from_zero: bool = False


@dataclass(frozen=True)
class Chart:
    """One line per name through points (x, y).

    On logarithmic axes all are positive. Series named in `dots` are drawn as points, those in `filled` with the area
    below them. `stepped`: x are the middles of bins of equal width. Points that are not finite are left out.
    """

    series: Mapping[str, Line]
    x: Axis
    y: Axis
    dots: Collection[str] = ()
    filled: Collection[str] = ()
    stepped: bool = False

    def __post_init__(self) -> None:
        # A loss that diverged is NaN or infinite.
        finite = {
            name: [point for point in line if all(map(math.isfinite, point))]
            for name, line in self.series.items()
        }
        object.__setattr__(self, "series", finite)


def histogram(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> Chart:
    """Counts between `edges`, evenly spaced, on a square-root axis that makes tails visible.

    The first one has its area filled, so that it shows where others cover its line.
    """
    middles = [(left + right) / 2 for left, right in pairwise(edges)]
    series = {name: list(zip(middles, numbers, strict=True)) for name, numbers in counts.items()}
    y = Axis("number of weights", "{:,.0f}", ROOT, from_zero=True)
    return Chart(series, Axis("value"), y, filled=list(counts)[:1], stepped=True)


def svg(chart: Chart) -> str:
    """A self-contained `<svg>` element, with a legend below."""
    x_scale, y_scale, format_x, format_y = (
        chart.x.scale, chart.y.scale, chart.x.format.format, chart.y.format.format,
    )  # fmt: skip
    series = {name: _stepped(line) for name, line in chart.series.items()} if chart.stepped else chart.series
    points = [point for line in series.values() for point in line] or [(1.0, 1.0)]
    low_x, high_x = _ends([x for x, _ in points], x_scale)
    zero = [0.0] if chart.y.from_zero else []
    low_y, high_y = _ends([*zero, *(y for _, y in points)], y_scale)
    x_ticks, y_ticks = within(x_scale.ticks(low_x, high_x), low_x, high_x), y_scale.ticks(low_y, high_y)
    low_y, high_y = min([low_y, *y_ticks]), max([high_y, *y_ticks])
    across = _positions(x_scale, low_x, high_x, LEFT, WIDTH - RIGHT)
    up = _positions(y_scale, low_y, high_y, HEIGHT - BOTTOM, TOP)

    def place(x: float, y: float) -> tuple[float, float]:
        return across(x), up(y)

    parts = [*_grid(x_ticks, y_ticks, across, up, format_x, format_y), *_titles(chart.x.label, chart.y.label)]
    legend = _Legend(len(series) > 1)
    for index, (name, line) in enumerate(series.items()):
        color, dashes = COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)]
        spot = legend.add(name)
        if name in chart.dots:
            parts += _dots(name, line, place, color, format_x, format_y)
            parts += [] if spot is None else [_dot(spot[0] + 12, spot[1], color, name)]
        else:
            stroke = f'stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}" fill="none"'
            parts.append(_line(name, line, place, stroke, color if name in chart.filled else None))
            parts += [] if spot is None else [f'<path d="M{spot[0]:.0f} {spot[1]}h24" {stroke}/>']
    bottom = legend.bottom + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" role="img" '
        f'aria-label="{escape(title(chart))}"><style>{STYLE}</style>{"".join(parts)}'
        f"{''.join(legend.texts)}</svg>"
    )


def title(chart: Chart) -> str:
    """What a chart shows, for those who do not see it."""
    return f"{chart.y.label} against {chart.x.label}"


def shortened(name: str, room: int) -> str:
    """A name that loses its beginning where it is longer than `room` letters: the ends of names tell layers apart."""
    return name if len(name) <= room else f"…{name[1 - room :]}"


def _stepped(line: Line) -> Line:
    """The corners of the steps of a histogram."""
    half = (line[1][0] - line[0][0]) / 2 if len(line) > 1 else 0.5
    return [corner for x, y in line for corner in ((x - half, y), (x + half, y))]


class _Legend:
    """Names beside samples of their lines, in rows below a chart; none of a single line."""

    def __init__(self, shown: bool) -> None:
        self.texts: list[str] = []
        self.bottom = HEIGHT
        self._shown, self._next = shown, float(WIDTH)

    def add(self, name: str) -> tuple[float, float] | None:
        """Where to draw the sample of a line: its left end; None without a legend. Long names lose their beginning."""
        if not self._shown:
            return None
        name = shortened(name, int((WIDTH - LEFT - SAMPLE) / LETTER))
        width = SAMPLE + LETTER * len(name)
        if self._next + width > WIDTH:
            self._next, self.bottom = float(LEFT), self.bottom + LEGEND_LINE
        left, self._next = self._next, self._next + width
        self.texts.append(text_element(left + 30, self.bottom - 6, name, "start"))
        return left, self.bottom - 10


def _positions(scale: Scale, low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Where a value lies on an axis that runs from `start` to `end` in the picture."""
    first, last = scale.position(low), scale.position(high)
    return lambda value: start + (scale.position(value) - first) / (last - first) * (end - start)


def _grid(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    across: Callable[[float], float],
    up: Callable[[float], float],
    format_x: Callable[[float], str],
    format_y: Callable[[float], str],
) -> list[str]:
    """Lines and labels of the ticks; a label that repeats the one before it is left out."""
    parts, last = [], ""
    for tick in y_ticks:
        parts.append(
            f'<path d="M{LEFT} {up(tick):.1f}H{WIDTH - RIGHT}" stroke="currentColor" opacity=".15"/>'
        )
        if (label := format_y(tick)) != last:
            parts.append(text_element(LEFT - 6, up(tick) + 4, label, "end"))
        last = label
    right = float("-inf")
    for tick in x_ticks:
        label = format_x(tick)
        half = LETTER * len(label) / 2
        parts.append(
            f'<path d="M{across(tick):.1f} {HEIGHT - BOTTOM}v4" stroke="currentColor" opacity=".5"/>'
        )
        if across(tick) - half > right:
            parts.append(text_element(across(tick), HEIGHT - BOTTOM + 18, label, "middle"))
            right = across(tick) + half + LETTER
    return parts


def _titles(x_label: str, y_label: str) -> list[str]:
    return [
        text_element((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"),
        f'<text transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle" '
        f'fill="currentColor">{escape(y_label)}</text>',
    ]


def _line(name: str, line: Line, place: Place, stroke: str, fill: str | None) -> str:
    if not line:
        return ""
    path = "L".join("{:.1f} {:.1f}".format(*place(*point)) for point in line)
    area = ""
    if fill is not None:
        left, right = place(*line[0])[0], place(*line[-1])[0]
        ground = HEIGHT - BOTTOM
        area = f'<path d="M{left:.1f} {ground}L{path}L{right:.1f} {ground}Z" fill="{fill}" opacity=".25"/>'
    return f'{area}<path d="M{path}" {stroke}><title>{escape(name)}</title></path>'


def _dots(
    name: str,
    line: Line,
    place: Place,
    color: str,
    format_x: Callable[[float], str],
    format_y: Callable[[float], str],
) -> list[str]:
    return [_dot(*place(x, y), color, f"{name}: {format_x(x)}, {format_y(y)}") for x, y in line]


def _dot(x: float, y: float, color: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}"><title>{escape(title)}</title></circle>'


def text_element(x: float, y: float, text: str, anchor: str) -> str:
    """A `<text>` at a place, in the color of the page's text; `anchor`: start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'


def _ends(values: Sequence[float], scale: Scale) -> tuple[float, float]:
    """The lowest and highest of values, made different."""
    low, high = min(values), max(values)
    if high > low:
        return low, high
    return (low / 1.5, high * 1.5) if scale is LOGARITHMIC else (low, low + 1)

"""SVG charts that work offline, in light and dark mode, at any width."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 68, 24, 12, 44
TICKS = 5
LEGEND_LINE = 16
# Distinguishable for color-blind readers (Okabe and Ito 2008); dashes distinguish lines of one color.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "6 3", "2 2", "8 3 2 3")
# The smallest value on logarithmic axes.
SMALLEST = 1e-9

STYLE = """svg{color-scheme:light dark;color:#222;font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{color:#ddd}}"""

Line = Sequence[tuple[float, float]]


def line_chart(
    series: Mapping[str, Line],
    x_label: str,
    y_label: str,
    format_x: Callable[[float], str] = "{:g}".format,
    format_y: Callable[[float], str] = "{:.3g}".format,
    *,
    from_zero: bool = True,
    dots: Collection[str] = (),
) -> str:
    """A self-contained `<svg>` element: one line per name through points (x, y), with a legend below.

    Series named in `dots` are drawn as points. `from_zero`: the y axis starts at 0.
    """
    points = [point for line in series.values() for point in line]
    lowest_x, highest_x = _ends([x for x, _ in points])
    lowest_y, highest_y = _ends([*([0.0] if from_zero else []), *(y for _, y in points)])

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - lowest_x) / (highest_x - lowest_x) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (highest_y - y) / (highest_y - lowest_y) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in range(TICKS + 1):
        x = lowest_x + (highest_x - lowest_x) * tick / TICKS
        y = lowest_y + (highest_y - lowest_y) * tick / TICKS
        across, up = place(x, y)
        parts.append(f'<path d="M{LEFT} {up:.1f}H{WIDTH - RIGHT}" stroke="currentColor" opacity=".15"/>')
        parts.append(text_element(LEFT - 6, up + 4, format_y(y), "end"))
        parts.append(text_element(across, HEIGHT - BOTTOM + 16, format_x(x), "middle"))
    parts.append(text_element((LEFT + WIDTH) / 2, HEIGHT - 6, x_label, "middle"))
    parts.append(
        f'<text transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle" '
        f'fill="currentColor">{escape(y_label)}</text>'
    )
    bottom = HEIGHT
    for index, (name, line) in enumerate(series.items()):
        color = COLORS[index % len(COLORS)]
        dashes = DASHES[index // len(COLORS) % len(DASHES)]
        bottom += LEGEND_LINE
        if name in dots:
            places = [*(place(*point) for point in line), (LEFT + 12.0, bottom - 10.0)]
            parts += [
                f'<circle cx="{across:.1f}" cy="{up:.1f}" r="5" fill="{color}"><title>{escape(name)}</title>'
                "</circle>"
                for across, up in places
            ]
        else:
            path = "L".join("{:.1f} {:.1f}".format(*place(*point)) for point in line)
            stroke = f'stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}" fill="none"'
            parts.append(f'<path d="M{path}" {stroke}><title>{escape(name)}</title></path>')
            parts.append(f'<path d="M{LEFT} {bottom - 10}h24" {stroke}/>')
        parts.append(text_element(LEFT + 30, bottom - 6, name, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 4}" role="img" '
        f'aria-label="{escape(y_label)} against {escape(x_label)}"><style>{STYLE}</style>{"".join(parts)}</svg>'
    )


def text_element(x: float, y: float, text: str, anchor: str) -> str:
    """A `<text>` at a place, in the color of the page's text; `anchor`: start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest of values, made different."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1)


def histogram(edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> str:
    """Counts between `edges`, one stepped line per name, on a square-root axis that makes tails visible."""
    series = {
        name: [
            point
            for left, right, count in zip(edges, edges[1:], numbers, strict=False)
            for point in ((left, count**0.5), (right, count**0.5))
        ]
        for name, numbers in counts.items()
    }
    return line_chart(series, "value", "number of weights", "{:.2g}".format, _squared)


def _squared(root: float) -> str:
    """The label of a tick of the count axis; with integers, small counts would have equal labels."""
    count = root**2
    return f"{count:,.0f}" if count >= 10 else f"{count:.2g}"

"""Interactive charts by plotly.js, which is in the page: values under the pointer, zoom, lines that a click hides.

Without scripts, as where a mail or a build server shows the page, the SVG of the chart stays in its place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from onnxprune.reports.charts import COLORS, DASHES, Axis, Chart, shortened, svg, title
from onnxprune.reports.scales import LOGARITHMIC, ROOT, WHOLE, root_ticks

LIBRARY = Path(__file__).parent / "plotly" / "plotly-basic.min.js"
"""plotly.js-basic-dist-min 4.1.1 of npm, as it is there, with its license; `npm pack` fetches a newer one."""
MARK = "data-plot"
# Letters of a name in a legend, on a phone.
LEGEND = 38
FEW_EPOCHS = 10
# Between the labels of the ticks and the name of an axis, in CSS pixels.
STANDOFF = 10
# Decades of a logarithmic axis on which ticks at 1, 2 and 5 would be crowded.
WIDE = 2.5


def plot(chart: Chart) -> str:
    """The chart as HTML for a page that has `scripts`."""
    figure = json.dumps({"data": _traces(chart), "layout": _layout(chart)}, separators=(",", ":"))
    return (
        f'<div class="plot" {MARK}="{escape(figure)}" aria-label="{escape(title(chart))}">{svg(chart)}</div>'
    )


def scripts(body: str) -> str:
    """The library, for a page whose body has charts."""
    return LIBRARY.read_text(encoding="utf-8") if MARK in body else ""


def _traces(chart: Chart) -> list[dict[str, Any]]:
    made = []
    for index, (name, line) in enumerate(chart.series.items()):
        color, dashes = COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)]
        stroke = {"color": color, "width": 2, "shape": "hvh" if chart.stepped else "linear"}
        trace: dict[str, Any] = {
            "type": "scatter",
            "name": _text(shortened(name, LEGEND)),
            "x": [_short(x) for x, _ in line],
            "y": [_short(_up(chart.y, y)) for _, y in line],
            "mode": "markers" if name in chart.dots else "lines",
            "line": stroke | ({"dash": ",".join(f"{each}px" for each in dashes.split())} if dashes else {}),
            "marker": {"color": color, "size": 9},
        }
        if name in chart.filled:
            trace |= {"fill": "tozeroy", "fillcolor": f"{color}40"}
        if chart.y.scale is ROOT:
            # The axis has the roots.
            texts = [chart.y.format.format(y) for _, y in line]
            trace |= {"text": texts, "hovertemplate": "%{text}"}
        made.append(trace)
    return made


def _layout(chart: Chart) -> dict[str, Any]:
    """Without colors, which the script takes from the page."""
    return {
        "xaxis": _axis(chart.x, [x for line in chart.series.values() for x, _ in line]),
        "yaxis": _axis(chart.y, [y for line in chart.series.values() for _, y in line]),
        "showlegend": len(chart.series) > 1,
    }


def _axis(axis: Axis, values: Sequence[float]) -> dict[str, Any]:
    before, spec, after = _d3_format(axis.format)
    made: dict[str, Any] = {"title": {"text": _text(axis.label), "standoff": STANDOFF}, "hoverformat": spec}
    made |= {"tickprefix": before} if before else {}
    made |= {"ticksuffix": after} if after else {}
    if axis.scale is LOGARITHMIC:
        # 1, 2, 5, 10, ...; over many decades powers of ten.
        decades = math.log10(max(values, default=1) / min(values, default=1))
        made |= {
            "type": "log",
            "tickformat": spec,
            "dtick": "D2" if decades < WIDE else max(1, round(decades / 8)),
        }
    elif axis.scale is ROOT:
        ticks = root_ticks(0, max(values, default=1))
        made |= {
            "tickvals": [_short(math.sqrt(tick)) for tick in ticks],
            "ticktext": [axis.format.format(tick) for tick in ticks],
        }
    else:
        # Rounder than the format of values: 2% and not 2.00%.
        made |= {"tickformat": "~%" if spec.endswith("%") else "~g"}
    if axis.scale is WHOLE and max(values, default=0) <= FEW_EPOCHS:
        made["dtick"] = 1
    if axis.from_zero:
        made["rangemode"] = "tozero"
    return made


def _d3_format(given: str) -> tuple[str, str, str]:
    """What is before and after a number, and its format for d3, whose formats are those of Python but for g."""
    found = re.fullmatch(r"(.*)\{:(.*)\}(.*)", given)
    assert found is not None, "a format has one number"
    before, spec, after = found.groups()
    return before, spec.replace("g", "~g"), after


def _text(name: str) -> str:
    """A name as it is: plotly.js reads some tags of HTML in texts."""
    return escape(name, quote=False)


def _up(axis: Axis, y: float) -> float:
    return math.sqrt(y) if axis.scale is ROOT else y


def _short(number: float) -> float:
    """Enough digits for a picture."""
    return float(f"{number:.6g}")

"""The trade-off between rate and test error, drawn as in Han et al. 2015, Figure 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib import pyplot

# The upper end of the error axis; higher errors are not shown.
WORST_ERROR = 6.0
ONE_SHOT = "without fine-tuning"


@dataclass(frozen=True)
class Curve:
    """Test errors in per cent, one for each rate (fraction removed)."""

    name: str
    rates: tuple[float, ...]
    errors: tuple[float, ...]


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Write the curves as an SVG; the same curves give the same bytes."""
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "tradeoff", "font.size": 10, "svg.fonttype": "none"})
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for curve in curves:
        dashed = ONE_SHOT in curve.name
        axes.plot(
            [100 * rate for rate in curve.rates],
            curve.errors,
            "o--" if dashed else "o-",
            markersize=4,
            label=curve.name,
        )
    axes.set(xlabel="weights removed, %", ylabel="test error, %", ylim=(1, WORST_ERROR))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})

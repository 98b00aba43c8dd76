"""HTML building blocks of the report: sections, figures and tables; all texts are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

# On a phone, longer texts with their headings have a line of their own.
LONG = 20


class Cell(NamedTuple):
    """The text of a cell; the number to sort it by, if there is one; and the share of a bar behind it."""

    text: str
    value: float | None = None
    share: float | None = None


def section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def paragraph(text: str, kind: str = "dim") -> str:
    return f'<p class="{kind}">{escape(text)}</p>'


def items(texts: Iterable[str]) -> str:
    """A list; nothing without texts."""
    lines = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{lines}</ul>" if lines else ""


def details(summary: str, body: str) -> str:
    """What a click on its summary opens."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def charts(figures: Iterable[str], kind: str = "charts") -> str:
    """Figures side by side, as many as fit."""
    return f'<div class="{kind}">{"".join(f"<figure>{figure}</figure>" for figure in figures)}</div>'


def caption(text: str, note: str = "") -> str:
    small = f"<small>{escape(note)}</small>" if note else ""
    return f"<figcaption>{escape(text)}{small}</figcaption>"


def picture(png: str, text: str, width: int) -> str:
    """A PNG in Base64, `width` CSS pixels wide where there is room, without smoothing."""
    return f'<img class="pixels" width="{width}" alt="{escape(text)}" src="data:image/png;base64,{png}">'


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    total: Sequence[Cell] = (),
    filtered: bool = False,
    stacked: bool = True,
) -> str:
    """A table that a click on a heading sorts.

    `total`: a last row that stays where it is. `filtered`: a field above it keeps the rows that have its words.
    `stacked`: on a phone each row stands on its own, with its headings.
    """
    lines = list(rows)
    numeric = [cell.value is not None for cell in lines[0]] if lines else [False] * len(headings)
    head = "".join(
        f'<th scope="col"{" class=number" if number else ""}><button>{escape(heading)}</button></th>'
        for heading, number in zip(headings, numeric, strict=True)
    )
    body = "".join(_row(headings, line) for line in lines)
    foot = f"<tfoot>{_row(headings, total)}</tfoot>" if total else ""
    kind = ' class="stack"' if stacked else ""
    field = (
        '<label class="filter" hidden>Filter <input type="search"><output></output></label>'
        if filtered
        else ""
    )
    return (
        f'<div class="wide">{field}<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}'
        "</table></div>"
    )


def _row(headings: Sequence[str], line: Sequence[Cell]) -> str:
    cells = "".join(_cell(heading, cell) for heading, cell in zip(headings, line, strict=True))
    return f"<tr>{cells}</tr>"


def _cell(heading: str, cell: Cell) -> str:
    kinds = [
        *(["number"] if cell.value is not None else []),
        *(["long"] if len(heading) + len(cell.text) > LONG else []),
    ]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    value = "" if cell.value is None else f' data-value="{cell.value}"'
    bar = ""
    if cell.share is not None:
        end = f"{cell.share:.1%}"
        bar = f' style="background:linear-gradient(to right,var(--bar) {end},transparent {end})"'
    label = f' data-label="{escape(heading)}"' if heading else ""
    return f"<td{kind}{value}{label}{bar}>{escape(cell.text)}</td>"

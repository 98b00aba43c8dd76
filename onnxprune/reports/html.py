"""HTML building blocks of the report: sections and tables; all texts are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Cell = tuple[str, float | None]
"""The text of a cell, and the number to sort it by, if there is one."""


def section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def paragraph(text: str, kind: str = "dim") -> str:
    return f'<p class="{kind}">{escape(text)}</p>'


def charts(figures: Iterable[str]) -> str:
    """Figures side by side, as many as fit."""
    return f'<div class="charts">{"".join(f"<figure>{figure}</figure>" for figure in figures)}</div>'


def table(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table that a click on a heading sorts."""
    lines = list(rows)
    numeric = [value is not None for _, value in lines[0]] if lines else [False] * len(headings)
    head = "".join(
        f'<th scope="col"{" class=number" if number else ""}><button>{escape(heading)}</button></th>'
        for heading, number in zip(headings, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(_cell(*cell) for cell in line)}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, value: float | None) -> str:
    number = "" if value is None else f' class="number" data-value="{value}"'
    return f"<td{number}>{escape(text)}</td>"

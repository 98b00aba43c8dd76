"""The frame of an HTML page: one file with its style and its script, for light and dark mode and any width."""

from __future__ import annotations

from html import escape
from pathlib import Path

from onnxprune.reports.plots import scripts

FOLDER = Path(__file__).parent
STYLE, SCRIPT = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
# Tables with more rows have a field to filter them.
FILTERED = 8


def document(title: str, body: str) -> str:
    """The whole page; `body` is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"{body}<script>{scripts(body)}{SCRIPT}</script></body></html>\n"
    )

"""Counts, sizes and shapes in words."""

from __future__ import annotations


def shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def bytes_text(count: int) -> str:
    """Bytes in decimal units: 1,070 kB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= 10 * size:
            return f"{count / size:,.0f} {unit}"
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"

"""PNG files of small pictures, written without a library (W3C, PNG third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, INDEXED = 0, 2, 3
LEVELS = 16
"""Levels of `png_of_levels`: half a byte for each pixel."""


def png_of_pixels(pixels: np.ndarray) -> bytes:
    """A PNG of uint8 gray levels (H, W) or colors (H, W, 3)."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    return _png(width, height, 8, GRAY if pixels.ndim == 2 else RGB, rows)


def png_of_levels(levels: np.ndarray, color: Sequence[int]) -> bytes:
    """A PNG of one color (red, green, blue), from transparent at level 0 to opaque at `LEVELS` - 1; (H, W)."""
    height, width = levels.shape
    even = np.pad(levels, ((0, 0), (0, width % 2))).astype(np.uint8)
    alpha = bytes(round(255 * level / (LEVELS - 1)) for level in range(LEVELS))
    palette = _chunk(b"PLTE", bytes(color) * LEVELS) + _chunk(b"tRNS", alpha)
    return _png(width, height, 4, INDEXED, even[:, ::2] << 4 | even[:, 1::2], palette)


def _png(width: int, height: int, bits: int, kind: int, rows: np.ndarray, palette: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    # Each row begins with its filter: none.
    lines = np.pad(rows, ((0, 0), (1, 0))).tobytes()
    body = _chunk(b"IDAT", zlib.compress(lines, 9))
    return SIGNATURE + _chunk(b"IHDR", head) + palette + body + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

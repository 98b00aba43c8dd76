"""The size of files as they travel."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

READ_BYTES = 1 << 20
GZIP = zlib.MAX_WBITS | 16
# Larger ones would take longer than a look at a model should: some seconds.
MOST_BYTES = 1 << 26


def gzip_bytes(parts: Iterable[Path | bytes]) -> int | None:
    """Bytes of files and contents compressed by gzip, each alone; None if they have more than `MOST_BYTES`."""
    given = list(parts)
    total = sum(len(part) if isinstance(part, bytes) else part.stat().st_size for part in given)
    return None if total > MOST_BYTES else sum(map(_compressed, given))


def _compressed(part: Path | bytes) -> int:
    compressor = zlib.compressobj(wbits=GZIP)
    if isinstance(part, bytes):
        return len(compressor.compress(part)) + len(compressor.flush())
    size = 0
    with part.open("rb") as file:
        while block := file.read(READ_BYTES):
            size += len(compressor.compress(block))
    return size + len(compressor.flush())

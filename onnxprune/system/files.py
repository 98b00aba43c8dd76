"""Writing the small files of a job: recipes, records and pages."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace a file by a text, whole or not at all; what is no regular file, such as /dev/stdout, is written to.

    Raises:
        OSError: it cannot be written; an existing file is not changed.
    """
    # A link stays, and what it leads to is replaced.
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_file():
        place.write_text(text)
        return
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=place.parent) as folder:
        made = Path(folder) / place.name
        made.write_text(text)
        os.replace(made, place)

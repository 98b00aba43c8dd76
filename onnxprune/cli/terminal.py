"""Output of a command: the terminal, and the files beside the model."""

from __future__ import annotations

import json
import os
from typing import Any

from rich.console import Console

from onnxprune.errors import OutputError
from onnxprune.system.files import write_text

# Tables that go to a file or pipe have no terminal to fit.
PIPED_WIDTH = 120
MODEL_SUFFIX = ".onnx"


def console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def check_writable(flag: str, path: str | None) -> None:
    """Check before the work that a file can be written.

    Raises:
        OutputError: it is a folder, its folder does not exist, or it is a model.
    """
    if path is not None and path.endswith(MODEL_SUFFIX):
        raise OutputError(f"{flag} {path} is the name of a model: name another file")
    if path is not None and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or ".")):
        raise OutputError(f"{flag} {path} cannot be written: name a file in an existing folder")


def write_json(path: str | None, content: Any) -> None:
    write("--json", path, json.dumps(content, indent=2) + "\n")


def write(flag: str, path: str | None, content: str) -> None:
    if path is None:
        return
    try:
        write_text(path, content)
    except OSError as error:
        raise OutputError(
            f"{flag} {path} cannot be written: {error.strerror}; the other output is complete"
        ) from error

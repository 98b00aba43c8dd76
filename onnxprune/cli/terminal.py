"""Output of a command: the terminal, the progress bar, and the files beside the model."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from onnxprune.errors import OutputError
from onnxprune.system.files import write_text

LOG = logging.getLogger("onnxprune")
LOG.setLevel(logging.INFO)
# Jobs shorter than this show no bar.
QUIET_SECONDS = 1.0
# Tables that go to a file or pipe have no terminal to fit.
PIPED_WIDTH = 120
MODEL_SUFFIX = ".onnx"


def console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr for the current stage, shown after `QUIET_SECONDS`; none when not a terminal."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    start = threading.Timer(QUIET_SECONDS, bar.start)
    start.daemon = True
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: float) -> None:
        if stage not in tasks:
            for earlier in tasks.values():
                bar.update(earlier, visible=False)
            tasks[stage] = bar.add_task(stage, total=1.0)
        bar.update(tasks[stage], completed=done)

    lines = _Lines(bar.console)
    try:
        LOG.addHandler(lines)
        start.start()
        yield show
    finally:
        start.cancel()
        start.join()
        bar.stop()
        LOG.removeHandler(lines)


class _Lines(logging.Handler):
    """Prints what a job logs above its progress bar."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        kind = "Warning: " if record.levelno >= logging.WARNING else ""
        self._console.print(f"{kind}{record.getMessage()}", markup=False, highlight=False, soft_wrap=True)


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

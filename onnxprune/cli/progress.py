"""What a command shows while it works, on stderr: a bar in a terminal, a line a minute in a log, and what jobs log."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG = logging.getLogger("onnxprune")
LOG.setLevel(logging.INFO)
# Evaluations of a training, by training/fine_tuning.py: they are shown beside the bar, not as lines of their own.
EPOCHS = logging.getLogger("onnxprune.epochs")
# Jobs shorter than this show no bar.
LEAST_SECONDS = 1.0
# Between two lines in a log.
LINE_SECONDS = 60.0
# A stage must have come so far for an estimate of the time left.
ESTIMATED_PART = 0.02


class Shown(Protocol):
    """What shows the progress: the part of a stage that is done, and what is known besides."""

    def stage(self, name: str, done: float) -> None: ...
    def detail(self, text: str) -> None: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Callable[[str, float], None]]:
    """Show the current stage of a job, called with its name and the fraction that is done, and what the job logs.

    `quiet`: only warnings are shown.
    """
    console = Console(stderr=True)
    shown: Shown = Silence() if quiet else Bar(console) if console.is_terminal else Lines(console)
    handler = _Logged(console, shown, logging.WARNING if quiet else logging.INFO)
    try:
        LOG.addHandler(handler)
        yield shown.stage
    finally:
        shown.close()
        LOG.removeHandler(handler)


class Silence:
    """Shows nothing."""

    def stage(self, name: str, done: float) -> None:
        """Show nothing."""

    def detail(self, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


class Bar:
    """A progress bar for the current stage in a terminal, shown after `LEAST_SECONDS`, and the last evaluation."""

    def __init__(self, console: Console):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
        )
        self._bar = Progress(*columns, console=console, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._current: TaskID | None = None
        self._start = threading.Timer(LEAST_SECONDS, self._bar.start)
        self._start.daemon = True
        self._start.start()

    def stage(self, name: str, done: float) -> None:
        """Show how much of a stage is done."""
        if name not in self._tasks:
            for earlier in self._tasks.values():
                self._bar.update(earlier, visible=False)
            self._tasks[name] = self._bar.add_task(name, total=1.0, detail="")
        self._current = self._tasks[name]
        self._bar.update(self._current, completed=done)

    def detail(self, text: str) -> None:
        """Show a text behind the bar of the current stage."""
        if self._current is not None:
            self._bar.update(self._current, detail=text)

    def close(self) -> None:
        """Remove the bar."""
        self._start.cancel()
        self._start.join()
        self._bar.stop()


class Lines:
    """A line every `LINE_SECONDS`, for output that goes to a file or a pipe."""

    def __init__(self, console: Console):
        self._console = console
        self._name, self._done, self._detail = "", 0.0, ""
        self._begun = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def stage(self, name: str, done: float) -> None:
        """Note how much of a stage is done."""
        if name != self._name:
            self._name, self._detail, self._begun = name, "", time.monotonic()
        self._done = done

    def detail(self, text: str) -> None:
        """Note a text for the next line."""
        self._detail = text

    def close(self) -> None:
        """End the lines."""
        self._ended.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._ended.wait(LINE_SECONDS):
            self._console.print(self._line(), markup=False, highlight=False, soft_wrap=True)

    def _line(self) -> str:
        done = self._done
        parts = [f"{time.strftime('%H:%M:%S')} {self._name} {done:.0%}", self._detail]
        if ESTIMATED_PART <= done < 1:
            left = (time.monotonic() - self._begun) * (1 - done) / done
            parts.append(f"{_time_text(left)} left")
        return ", ".join(filter(None, parts))


def _time_text(seconds: float) -> str:
    """40 s, 7 min, 2 h 5 min."""
    minutes = round(seconds / 60)
    if not minutes:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class _Logged(logging.Handler):
    """Prints what a job logs above its progress bar, and shows evaluations beside it."""

    def __init__(self, console: Console, shown: Shown, level: int):
        super().__init__(level)
        self._console = console
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line."""
        if record.name == EPOCHS.name:
            self._shown.detail(record.getMessage())
            return
        kind = "Warning: " if record.levelno >= logging.WARNING else ""
        self._console.print(f"{kind}{record.getMessage()}", markup=False, highlight=False, soft_wrap=True)

"""What a command shows while it works, on stderr: a bar in a terminal, a line a minute in a log, and what jobs log."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from onnxprune.system.progress import StageProgress

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
def progress_bar(quiet: bool = False, seconds: float | None = None) -> Iterator[StageProgress]:
    """Show the current stage of a job, called with its name and the fraction that is done, and what the job logs.

    `quiet`: only warnings are shown; `seconds`: what the whole job may take (--time), of which the rest is shown too.
    """
    console = Console(stderr=True)
    job = Remaining(seconds)
    shown: Shown = Silence() if quiet else (Bar if console.is_terminal else Lines)(console, job)
    handler = _Logged(console, shown, logging.WARNING if quiet else logging.INFO)
    try:
        LOG.addHandler(handler)
        yield shown.stage
    finally:
        shown.close()
        LOG.removeHandler(handler)


class Remaining:
    """What is left of the seconds that a job may take, from now on; `text` is empty without any."""

    def __init__(self, seconds: float | None = None):
        self._end = None if seconds is None else time.monotonic() + seconds

    def text(self) -> str:
        """As in "job 1 h 12 min left"."""
        left = 0.0 if self._end is None else self._end - time.monotonic()
        return f"job {_time_text(left)} left" if left > 0 else ""


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

    def __init__(self, console: Console, job: Remaining):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            _JobColumn(job),
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


class _JobColumn(ProgressColumn):
    """The time that is left for the whole job."""

    def __init__(self, job: Remaining):
        super().__init__()
        self._job = job

    def render(self, task: Task) -> Text:
        return Text(self._job.text())


class Lines:
    """A line every `LINE_SECONDS`, for output that goes to a file or a pipe."""

    def __init__(self, console: Console, job: Remaining):
        self._console = console
        self._job = job
        self._name, self._done, self._detail = "", 0.0, ""
        self._first = 0.0
        self._begun = self._told = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def stage(self, name: str, done: float) -> None:
        """Note how much of a stage is done."""
        if name != self._name:
            # A training that is resumed does not begin at 0.
            self._name, self._detail, self._first = name, "", done
        if done == self._first:
            self._begun = time.monotonic()
        self._done, self._told = done, time.monotonic()

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
        if self._first + ESTIMATED_PART <= done < 1:
            # What is done was so when it was told, perhaps long ago.
            speed = (done - self._first) / max(self._told - self._begun, 1e-9)
            left = (1 - done) / speed - (time.monotonic() - self._told)
            parts.append(f"{_time_text(max(left, 0.0))} left")
        parts.append(self._job.text())
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

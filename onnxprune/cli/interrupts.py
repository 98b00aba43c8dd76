"""Ctrl-C that stops within a second, also while native code runs: Python itself lets that finish first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

# What Python gets to leave in good order; then the process ends where it is.
GRACE_SECONDS = 0.6


@contextlib.contextmanager
def stopping_at_once(last_words: Callable[[], None], status: int) -> Iterator[None]:
    """Within, an interrupt that is not over after the grace ends the process with `status`, after `last_words`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()

    def watch() -> None:
        while arrived := os.read(reading, 1):
            if arrived[0] == signal.SIGINT and not over.wait(GRACE_SECONDS):
                last_words()
                os._exit(status)
        os.close(reading)

    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(writing)

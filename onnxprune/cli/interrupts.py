"""Ctrl-C that stops within a second, even while native code runs: Python alone would wait for that to return."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

# Time that Python has for an orderly exit; after that the process is ended.
GRACE_SECONDS = 0.6


@contextlib.contextmanager
def stopping_at_once(clean_up: Callable[[], None], status: int) -> Iterator[None]:
    """End the process with `status`, after `clean_up()`, if an interrupt is not handled within `GRACE_SECONDS`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()

    def watch() -> None:
        while arrived := os.read(reading, 1):
            if arrived[0] == signal.SIGINT and not over.wait(GRACE_SECONDS):
                clean_up()
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

"""Ctrl-C and terminations that stop within a second, in native code too: Python alone would wait for that to return."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

# Time that Python has for an orderly exit; after that the process is ended.
GRACE_SECONDS = 0.6
# What `docker stop`, schedulers and `timeout` send is handled as Ctrl-C is.
STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stopping_at_once(clean_up: Callable[[], None], status: int) -> Iterator[None]:
    """Raise KeyboardInterrupt at a termination too; end the process if one of `STOPPING` is not handled in time.

    That is with `status`, after `clean_up()`, after `GRACE_SECONDS`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()

    def watch() -> None:
        while arrived := os.read(reading, 1):
            if arrived[0] in STOPPING and not over.wait(GRACE_SECONDS):
                clean_up()
                os._exit(status)
        os.close(reading)

    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    terminating = signal.getsignal(signal.SIGTERM)
    # A parent may have it ignored, or another program handle it.
    if terminating is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        over.set()
        if terminating is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(before)
        os.close(writing)


def _is_handled() -> bool:
    return signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def _hold() -> None:
    """Hold a termination back while a process forks: in the new one, it may come before `_forget`."""
    if _is_handled():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release() -> None:
    if _is_handled():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _forget() -> None:
    """Have a forked process end at a termination, which would otherwise reach this one by their common pipe."""
    if _is_handled():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_forget)

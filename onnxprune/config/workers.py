"""Settings of the workers that perform the trials of a search."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxprune.config.declare import setting
from onnxprune.errors import SettingError

IN_TURN = "1"
# The cluster that RAY_ADDRESS names, or one that runs on this machine.
ANY_CLUSTER = "ray"
_CLUSTER = re.compile(r"ray://[^/\s]+:\d+")


@dataclass(frozen=True)
class WorkerSettings:
    """How many trials of a search are performed at once, and where."""

    heading = "Workers"

    workers: str | int = setting(
        IN_TURN,
        "Perform the trials of a search at once: in N processes on this machine, or on a Ray cluster (ray://HOST:PORT, "
        "or ray for the one of RAY_ADDRESS). The result is that of 1, which performs them in turn.",
        metavar="N|ray://HOST:PORT",
        trains=False,
    )


def parse_workers(value: str | int) -> int | str:
    """A number of processes on this machine, or the address of a Ray cluster.

    Raises:
        SettingError: it is neither.
    """
    text = str(value).strip()
    if text.isdecimal() and int(text) >= 1 and not isinstance(value, bool):
        return int(text)
    if text == ANY_CLUSTER or _CLUSTER.fullmatch(text):
        return text
    raise SettingError(
        f"--workers is {value!r}: give a number of processes, 1 or more, or a Ray cluster as ray://HOST:PORT"
    )

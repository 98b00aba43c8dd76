"""How many cores this process may use: those it may run on, and no more than a container is given time of."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def usable_cores(groups: Path = GROUPS, own: Path = OWN_GROUP) -> int:
    """The cores that this process can keep busy: `allowed_cores`, or its quota of CPU time, rounded up, if less.

    `groups`, `own`: where Linux shows control groups, and the one of this process.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    return min([allowed_cores(), *(max(1, math.ceil(quota)) for quota in _quotas(groups, own))])


def allowed_cores() -> int:
    """The cores that this process may run on, as `taskset` sets them; OpenMP starts so many threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Cores' worth of CPU time, of the group of this process and of each one around it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    # The line of version 2; groups of version 1 have numbers.
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if path is None:
        return
    group = groups / path.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(groups):
            return
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)
        except (OSError, ValueError):
            # The root has none, and "max" is no limit.
            continue

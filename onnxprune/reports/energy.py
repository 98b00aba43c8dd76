"""Energy of one inference: by the processor's counters where they can be read, else by CPU time and a power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxprune.errors import SettingError
from onnxprune.reports.latency import BASELINE

# Of a busy core of a server: an EPYC 7763 has 280 W for 64, a Xeon 8380 270 W for 40.
WATTS = 5.0


def check_watts(watts: float | None) -> None:
    """Raises SettingError: the power is no positive number."""
    if watts is not None and not 0 < watts < float("inf"):
        raise SettingError(
            f"--watts is {watts:g}: give the power of one busy core of this machine, for example 5"
        )


def energy_card(record: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """Title, baseline, fastest way to run the pruned model, and details; None where nothing was timed."""
    latency = record.get("latency") or {}
    measured, watts = latency.get("joules") or {}, record.get("watts")
    cpu = latency.get("cpu_milliseconds") or {}
    # A power that is given is the user's own measurement, of a core and without other programs.
    joules = measured if watts is None else {}
    by_time = {name: each / 1e3 * (watts or WATTS) for name, each in cpu.items()}
    title, how = "energy per inference, estimated", f"CPU time x {watts or WATTS:g} W for a busy core"
    if joules:
        title = "energy per inference, measured"
        how = (
            "by the processor's counters (RAPL) while one inference followed the other, idle power and other programs "
            "included"
        )
    elif watts is None:
        how = f"CPU time x an assumed {WATTS:g} W for a busy core (--watts for another)"
    found = joules or by_time
    pruned = [name for name in found if name != BASELINE]
    if BASELINE not in found or not pruned:
        return None
    best = min(pruned, key=latency["milliseconds"].__getitem__)
    details = f"{how}; {best.removeprefix('pruned, ')} on {latency['machine']}"
    return title, joules_text(found[BASELINE]), joules_text(found[best]), details


def joules_text(joules: float) -> str:
    """Of three digits: 1.2 J, 3.45 mJ, 18.3 µJ."""
    for unit, size in (("J", 1.0), ("mJ", 1e-3)):
        if joules >= size:
            return f"{joules / size:.3g} {unit}"
    return f"{joules * 1e6:.3g} µJ"

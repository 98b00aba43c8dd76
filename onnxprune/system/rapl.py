"""The energy counters of the processor (RAPL, Intel and AMD), as Linux shows them in /sys/class/powercap.

A counter is of a whole processor: its cores, caches and memory controller, of which other programs use their part.
https://www.kernel.org/doc/html/latest/power/powercap/powercap.html
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
# One for each processor; those of its parts (intel-rapl:0:0) are contained in it. AMD's have the same name.
PACKAGES = "intel-rapl:?"
MICRO = 1e-6


class EnergyCounters:
    """The counters of all processors together; `available`: whether there are any that this user may read."""

    def __init__(self, folder: Path = POWERCAP):
        self._zones = [zone for zone in sorted(folder.glob(PACKAGES)) if _is_package(zone)]
        self._ranges = [_number(zone / "max_energy_range_uj") or 0 for zone in self._zones]
        self.available = bool(self._zones) and None not in self.read()

    def read(self) -> list[int | None]:
        """The state of each counter, for `joules`."""
        return [_number(zone / "energy_uj") for zone in self._zones]

    def joules(self, before: list[int | None], after: list[int | None]) -> float:
        """The energy between two states; a counter that has passed its range begins again at 0."""
        spent = 0
        for start, end, span in zip(before, after, self._ranges, strict=True):
            if start is not None and end is not None:
                spent += end - start + (span if end < start else 0)
        return spent * MICRO


def _is_package(zone: Path) -> bool:
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


def _number(file: Path) -> int | None:
    # Since Linux 5.10 only root may read the counters (CVE-2020-8694).
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None

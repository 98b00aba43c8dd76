"""Settings of a sweep itself; those of its runs are the settings of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.config.checks import AT_LEAST_0, AT_LEAST_1, FRACTION, check_numbers, parse_bytes
from onnxprune.config.declare import PathLike, setting
from onnxprune.config.workers import IN_TURN, parse_workers
from onnxprune.errors import SettingError


@dataclass(frozen=True)
class SweepSettings:
    """Which combinations a sweep tries, where, and which of them it writes.

    Raises:
        SettingError: a value is out of range, or there is no grid.
    """

    heading = "Sweep"

    grid: PathLike | Mapping[str, Any] | None = setting(
        None,
        "A recipe in which settings have lists of values, for example 'rate: [0.8, 0.9]': every combination is tried. "
        "Flags give or override settings that are no list.",
        metavar="FILE",
    )
    seeds: int = setting(
        1, "Train each combination with N seeds, from --seed on.", metavar="N", within=AT_LEAST_1
    )
    folder: PathLike | None = setting(
        None,
        "Folder for the models of all runs, sweep.json and tradeoff.svg.  [default: OUT.onnx.sweep, or IN.onnx.sweep "
        "in the working folder]",
        metavar="FOLDER",
    )
    max_drop: float | None = setting(
        None,
        "Write the combination with the fewest weights whose mean drop on validation data is at most this, absolute, "
        "in the unit of the first metric.",
        metavar="DROP",
        within=AT_LEAST_0,
    )
    max_loss: float | None = setting(
        None,
        "As --max-drop, but relative to the input model's value of the first metric (0.01 or 1%).",
        metavar="LOSS",
        within=FRACTION,
    )
    max_bytes: str | int | None = setting(
        None,
        "Only write a combination whose files are all at most this large, for example 100k; without --max-drop and "
        "--max-loss, the one with the smallest mean drop.",
        metavar="SIZE",
    )
    workers: str | int = setting(
        IN_TURN,
        "Perform the runs at once: in N processes on this machine, or on a Ray cluster (ray://HOST:PORT, or ray for "
        "the one of RAY_ADDRESS). The results are those of 1, which performs them in turn.",
        metavar="N|ray://HOST:PORT",
    )
    resume: bool = setting(
        False, "Go on with the sweep in --folder: runs that it has finished are not repeated."
    )

    def __post_init__(self) -> None:
        if self.grid is None:
            raise SettingError("a sweep needs a grid: give --grid FILE, a recipe with lists of values")
        check_numbers(self)
        parse_workers(self.workers)
        if self.max_bytes is not None:
            object.__setattr__(self, "max_bytes", parse_bytes("--max-bytes", self.max_bytes))

    @property
    def budgeted(self) -> bool:
        """Whether one of the combinations is to be chosen."""
        return any(limit is not None for limit in (self.max_drop, self.max_loss, self.max_bytes))

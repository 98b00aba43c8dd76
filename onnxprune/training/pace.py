"""How far each update moves a training along its schedules: by one, or as far as a time budget needs it to."""

from __future__ import annotations

import time
from dataclasses import dataclass

# The pace is measured anew at these updates, and then every `EVERY`.
FIRST, EVERY = (4, 8, 16, 32, 64), 64
# With less time left than for so many updates, all that is left of the schedules is passed in them.
LEAST = 1.0


@dataclass
class Pace:
    """The position of a training on schedules of `length` updates, and the time that is left for it.

    Without a deadline every update moves it by 1. With one, it moves so far that the end of the schedules falls on the
    deadline: faster on a slow machine, slower on a fast one.
    """

    length: int
    deadline: float | None = None
    """By `time.monotonic()`."""
    position: float = 0.0
    stride: float = 1.0
    _updates: int = 0
    _evaluating: float = 0.0
    _evaluations: int = 0
    _begun: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the position is at the end."""
        return self.position >= self.length - 1e-9

    def begin(self) -> None:
        """Start to measure the speed of updates; evaluations before count as evaluations."""
        self._begun = time.monotonic() - self._evaluating

    def move(self) -> None:
        """Count an update."""
        self.position = min(self.length, self.position + self.stride)
        self._updates += 1

    def evaluated(self, seconds: float) -> None:
        """Count an evaluation, which takes time and moves nothing."""
        self._evaluating += seconds
        self._evaluations += 1

    @property
    def is_due(self) -> bool:
        """Whether the stride is to be measured anew."""
        return self.deadline is not None and (self._updates in FIRST or self._updates % EVERY == 0)

    def measured(self, an_epoch: int) -> float:
        """The stride that fits the time left, by the speed so far; an epoch of `an_epoch` updates has an evaluation."""
        assert self.deadline is not None
        now = time.monotonic()
        update = (now - self._begun - self._evaluating) / max(self._updates, 1)
        evaluation = self._evaluating / max(self._evaluations, 1)
        # The last evaluation comes after the last update.
        left = (self.deadline - now - evaluation) / (update + evaluation / an_epoch)
        return (self.length - self.position) / max(left, LEAST)

    def state(self) -> dict[str, float | None]:
        """For a checkpoint: the position, and the seconds left."""
        left = None if self.deadline is None else self.deadline - time.monotonic()
        return {"position": self.position, "stride": self.stride, "left": left}

    def resume(self, state: dict[str, float | None]) -> None:
        """Go on from a state of a training with the same settings."""
        self.position, self.stride = state["position"] or 0.0, state["stride"] or 1.0
        if state["left"] is not None:
            self.deadline = time.monotonic() + state["left"]

"""Wall time of the stages of a job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from onnxprune.system.progress import StageProgress


class Stopwatch:
    """Wall time of each stage, in seconds; also reports the start of each stage to `progress`."""

    def __init__(self, progress: StageProgress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._progress(stage, 0.0)
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start

"""How the training loop is told a metric: a scorer, which the job makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from onnxprune.data.batch import Batch

Result = tuple[str | None, float | None, bool]
"""The name of the metric, its value, and whether higher is better; None without labels."""


class Scorer(Protocol):
    """Collects the outputs of a model on batches, and scores them."""

    def add(self, outputs: Sequence[np.ndarray], batch: Batch) -> None:
        """Count a batch; `outputs`: the graph's outputs in order."""

    def records(self) -> Any:
        """What was counted, to be sent to other processes."""

    def merged(self, records: Sequence[Any]) -> Result:
        """The score of the records of all processes together."""


MakeScorer = Callable[[], Scorer]

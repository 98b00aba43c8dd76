"""Samples in memory: what a model is run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

Labels = Mapping[str, np.ndarray]
"""Labels by the output that they belong to; "" is the first output. Samples along the first axis."""

# The label of positions that count neither in losses nor in metrics, as in torch.
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Samples along the first axis of every array: one array per input, and labels if there are any.

    A scalar belongs to every sample. `name`: of the data that they are from; `whole`: the arrays have no common first
    axis and form one sample; `patience`: seconds after which a run of a model on them is stopped; None: never.
    `given`: the labels as they were given, where a loss needs them beside those that metrics take.
    """

    inputs: dict[str, np.ndarray]
    labels: Labels = field(default_factory=dict)
    name: str = ""
    whole: bool = False
    patience: float | None = None
    given: Labels = field(default_factory=dict)

    def __len__(self) -> int:
        return 1 if self.whole else next(len(array) for array in self.inputs.values() if array.ndim)

    def take(self, index: np.ndarray | slice) -> Batch:
        """The samples at `index`."""
        if self.whole:
            return self
        inputs = {key: array[index] if array.ndim else array for key, array in self.inputs.items()}
        labels, given = (
            {key: array[index] for key, array in each.items()} for each in (self.labels, self.given)
        )
        return replace(self, inputs=inputs, labels=labels, given=given)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs for one sample."""
        shapes = {name: array.shape for name, array in self.inputs.items()}
        return shapes if self.whole else {name: (1, *shape[1:]) for name, shape in shapes.items() if shape}

"""Samples in memory: what a model is run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.data.axes import FIRST_AXES, BatchAxes
from onnxprune.data.ragged import alike, dense, taken

Labels = Mapping[str, np.ndarray]
"""Labels by the output that they belong to; "" is the first output. Samples along the first axis."""

# The label of positions that count neither in losses nor in metrics, as in torch.
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Samples along the first axis of every array: one array per input, and labels if there are any.

    Samples may be of several shapes, see `ragged`; `runs` splits them. `name`: of the data that they are from; `axes`:
    of the model; `patience`: seconds after which a run of a model on them is stopped; None: never. `given`: the labels
    as they were given, where a loss needs them beside those that metrics take.
    """

    inputs: dict[str, np.ndarray]
    labels: Labels = field(default_factory=dict)
    name: str = ""
    axes: BatchAxes = FIRST_AXES
    patience: float | None = None
    given: Labels = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, index: np.ndarray | slice) -> Batch:
        """The samples at `index`."""
        return self._each(lambda array: taken(array, index))

    def places(self, most: int, *, ordered: bool = True) -> Iterator[np.ndarray | slice]:
        """The samples of batches of at most `most` that a model can be run on; the last one may be too small.

        `ordered`: in their order, so that only neighbors of one shape are together; else sequences of similar length.
        """
        size = self.axes.size or most
        labels = {f"label {key}": array for key, array in self.labels.items()}
        given = {f"given {key}": array for key, array in self.given.items()}
        for index in self._alike(self.inputs | labels | given, ordered):
            count = len(self) if index is None else len(index)
            parts = (slice(start, min(start + size, count)) for start in range(0, count, size))
            yield from parts if index is None else (index[part] for part in parts)

    def _alike(self, arrays: Mapping[str, np.ndarray], ordered: bool) -> Iterator[np.ndarray | None]:
        padding = self.axes.padding
        for index in alike(arrays, self.axes.shared(), ordered=ordered):
            if padding is None or ordered:
                yield index
                continue
            every = np.arange(len(self)) if index is None else index
            inputs = {name: dense(taken(self.inputs[name], every)) for name in padding.masks}
            yield from (every[part] for part in padding.by_length(inputs))

    def at(self, index: np.ndarray | slice) -> Batch:
        """The samples at `index`, which are of one shape, without the padding that all of them have."""
        batch = self._each(lambda array: dense(taken(array, index)))
        padding = self.axes.padding
        return batch if padding is None else replace(batch, inputs=padding.cut(batch.inputs))

    def runs(self, most: int) -> Iterator[Batch]:
        """The batches of `places`."""
        return map(self.at, self.places(most))

    def feeds(self) -> dict[str, np.ndarray]:
        """The arrays that the model takes, of samples that one run is for."""
        return self.axes.feeds(self.inputs)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays that the model takes, for the first sample."""
        return {name: array.shape for name, array in self.at(slice(0, 1)).feeds().items()}

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> Batch:
        """The batch with every array changed."""
        inputs, labels, given = (
            {key: change(array) for key, array in arrays.items()}
            for arrays in (self.inputs, self.labels, self.given)
        )
        return replace(self, inputs=inputs, labels=labels, given=given)

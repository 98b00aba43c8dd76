"""The padding of sequences, which is cut off behind the longest sequence of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from onnxprune.data.specs import InputSpec

# Of numpy or torch.
Array = TypeVar("Array", bound=Any)

# A batch is split by length into runs of at least so many samples, and at most so many runs.
RUN_SAMPLES, MOST_RUNS = 16, 4


@dataclass(frozen=True)
class Padding:
    """`mask`: an input that is zero behind the end of each sequence; `axes`: the axis of positions, by input.

    Axes are those of samples, which lie along axis 0. `others`: more inputs that end in zeros, of another sequence
    or of the same.
    """

    mask: str
    axes: Mapping[str, int]
    others: tuple[str, ...] = ()

    @property
    def masks(self) -> tuple[str, ...]:
        """The inputs that say how long the sequences are: the longest counts."""
        return (self.mask, *self.others)

    def lengths(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The number of positions up to the last one that is not zero, (samples,)."""
        return np.max([_lengths(inputs[name], self.axes[name]) for name in self.masks], axis=0)

    def cut(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs of a run, without the positions behind the longest sequence."""
        return self.first(inputs, max(1, int(self.lengths(inputs).max(initial=1))))

    def first(self, inputs: Mapping[str, Array], count: int) -> dict[str, Array]:
        """The inputs with their first positions alone."""
        cut = dict(inputs)
        for name, axis in self.axes.items():
            cut[name] = inputs[name][(slice(None),) * axis + (slice(0, count),)]
        return cut

    def by_length(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The positions of the samples of runs of about equal length."""
        order = np.argsort(self.lengths(inputs), kind="stable")
        return np.array_split(order, max(1, min(MOST_RUNS, len(order) // RUN_SAMPLES)))


def paddings(
    specs: Sequence[InputSpec], batch_axis: Callable[[str], int | None], inputs: Mapping[str, np.ndarray]
) -> Iterator[Padding]:
    """What may be padding, by samples: zeros at the end of an open axis of inputs of integers, or of zeros and ones.

    `batch_axis`: of an input by name, as `BatchAxes.of`.

    All inputs with an axis of that name are cut there. Masks first: what is no mask is often zero elsewhere too.
    """
    places = {spec.name: _open_axes(spec, batch_axis(spec.name)) for spec in specs}
    found: dict[str, list[str]] = {}
    for name in sorted(places, key=lambda name: "mask" not in name.lower()):
        array = inputs[name]
        if array.dtype.kind not in "iub" and not np.isin(array, (0, 1)).all():
            continue
        for dim, axis in places[name].items():
            if _lengths(array, axis).min(initial=array.shape[axis]) < array.shape[axis]:
                found.setdefault(dim, []).append(name)
    for dim, (mask, *others) in found.items():
        yield Padding(mask, {name: each[dim] for name, each in places.items() if dim in each}, tuple(others))


def _lengths(array: np.ndarray, axis: int) -> np.ndarray:
    there = np.moveaxis(array, axis, 1) != 0
    there = there.reshape(*there.shape[:2], -1).any(2)
    return (there * np.arange(1, there.shape[1] + 1)).max(1, initial=0)


def _open_axes(spec: InputSpec, batch: int | None) -> dict[str, int]:
    """The axes of samples whose sizes are open, by the name of the size; the batch axis is none."""
    if batch is None:
        return {}
    dims = [dim for axis, dim in enumerate(spec.shape) if axis != batch]
    return {dim: axis for axis, dim in enumerate(dims, 1) if isinstance(dim, str)}

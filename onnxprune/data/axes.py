"""Which axis of each input and output of a model counts samples, and the way between its arrays and samples.

Samples lie along the first axis of every array while they are read, shuffled, split and scored. Here, and nowhere else,
they become the arrays that the model takes, and its outputs become samples again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxprune.data.labels import is_label
from onnxprune.data.padding import Padding
from onnxprune.data.ragged import is_ragged, repeated
from onnxprune.data.rows import RowFile, Rows
from onnxprune.data.specs import Dim, InputSpec

Axis = int | None
Choice = Mapping[str, Axis]
"""Axes by the names of what they are of."""


@dataclass(frozen=True)
class BatchAxes:
    """The batch axis of inputs, outputs and arrays of labels by name; None: there is none.

    An input without one goes with every sample of a run. Of an input or labels that are not named it is the first axis,
    of an output the first one that has as many positions as the run has samples. `size`: of how many samples every run
    is, where the model fixes it; None: any number. `padding`: what is cut off of the samples of a run.
    """

    inputs: Choice = field(default_factory=dict)
    outputs: Choice = field(default_factory=dict)
    labels: Choice = field(default_factory=dict)
    size: int | None = None
    padding: Padding | None = None

    @property
    def whole(self) -> bool:
        """Whether no input has a batch axis, so that every sample is a run."""
        return bool(self.inputs) and all(axis is None for axis in self.inputs.values())

    def of(self, name: str) -> Axis:
        """The batch axis of an input."""
        return self.inputs.get(name, 0)

    def shared(self) -> list[str]:
        """The inputs that go with every sample of a run."""
        return [name for name, axis in self.inputs.items() if axis is None]

    def freed(self) -> BatchAxes:
        """The same axes of a model that takes any number of samples."""
        return replace(self, size=None)

    def of_size(self, specs: Sequence[InputSpec]) -> BatchAxes:
        """The same axes for inputs of these dims, which may fix how many samples a run takes."""
        dims = (spec.shape[axis] for spec in specs if (axis := self.of(spec.name)) is not None and spec.shape)
        return replace(self, size=next((dim for dim in dims if isinstance(dim, int)), self.size))

    def sample_dims(self, spec: InputSpec) -> tuple[Dim, ...]:
        """The dims of one sample of an input."""
        axis = self.of(spec.name)
        return spec.shape if axis is None else (*spec.shape[:axis], *spec.shape[axis + 1 :])

    def feeds(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Samples of one shape as the arrays that the model takes."""
        return {name: self._feed(array, self.of(name)) for name, array in inputs.items()}

    def _feed(self, array: np.ndarray, axis: Axis) -> np.ndarray:
        if axis is None:
            return np.asarray(array[0])
        return array if axis == 0 else np.ascontiguousarray(np.moveaxis(array, 0, axis))

    def samples(self, name: str, output: Any, count: int) -> Any:
        """An output of a run of `count` samples, samples along the first axis, if it has them."""
        if not isinstance(output, np.ndarray):
            return output
        if self.whole:
            return output[None]
        axis = self.output_axis(name, output.shape, count)
        return output if not axis else np.moveaxis(output, axis, 0)

    def output_axis(self, name: str, shape: Sequence[int], count: int) -> Axis:
        """The batch axis of an output of this shape, for a run of `count` samples."""
        if name in self.outputs:
            return self.outputs[name]
        return next((axis for axis, size in enumerate(shape) if size == count), None)

    def rows(
        self, arrays: Mapping[str, Rows], specs: Sequence[InputSpec] = (), count: int | None = None
    ) -> dict[str, Rows]:
        """Arrays as the model takes them, and labels as its outputs are, with samples along the first axis.

        An array for an input may also have its samples along the first axis already. `count`: of the samples, if it is
        known.
        """
        inputs = {spec.name: spec for spec in specs}
        if self.whole:
            return {name: self._one(array, inputs.get(name)) for name, array in arrays.items()}
        count = count or self._count(arrays, inputs)
        return {name: self._rows(name, array, inputs.get(name), count) for name, array in arrays.items()}

    def _one(self, array: Rows, spec: InputSpec | None) -> Rows:
        """An array of the only sample; of several where it has an axis more."""
        if is_ragged(array) or (spec is not None and array.ndim > len(spec.shape)):
            return array
        return _read(array)[None]

    def _count(self, arrays: Mapping[str, Rows], inputs: Mapping[str, InputSpec]) -> int | None:
        """The number of samples by the arrays whose samples can lie along one axis only."""
        given = [(arrays[name], spec, self.of(name)) for name, spec in inputs.items() if name in arrays]
        for array, spec, axis in sorted(given, key=lambda each: each[2] != 0):
            if is_ragged(array):
                return len(array)
            if axis is not None and _fits(array.shape, spec, axis):
                return array.shape[axis]
        return next((len(array) for name, array in arrays.items() if array.ndim and name not in inputs), None)

    def _rows(self, name: str, array: Rows, spec: InputSpec | None, count: int | None) -> Rows:
        if is_ragged(array):
            return array
        if not array.ndim:
            # A label is of one sample; any other value goes with every sample.
            return repeated(np.asarray(array), 1 if spec is None and is_label(name) else count or 1)
        if spec is None:
            axis = self.labels.get(name)
            return _moved(array, axis) if axis and array.shape[axis : axis + 1] == (count,) else array
        axis = self.of(name)
        if axis is None:
            return array if array.ndim > len(spec.shape) else repeated(_read(array), count or 1)
        if axis and _fits(array.shape, spec, axis) and array.shape[axis] == count:
            return _moved(array, axis)
        if self.size == 1 and len(array) != count and array.ndim == len(spec.shape):
            # Any axis of size 1 may be that of the samples; an array without more than one is of all of them.
            others = (k for k, dim in enumerate(spec.shape) if dim == 1 and _fits(array.shape, spec, k))
            other = next((k for k in others if array.shape[k] in (count, 1)), None)
            if other is not None:
                rows = relaid(np.moveaxis(_read(array), other, 0), other, axis)
                return rows if len(rows) == count else repeated(rows[0], count or 1)
        return array


# Samples along the first axis of everything.
FIRST_AXES = BatchAxes()


def _fits(shape: Sequence[int], spec: InputSpec, axis: int) -> bool:
    """Whether an array of this shape is one of any number of samples, along this axis of an input."""
    return len(shape) == len(spec.shape) and all(
        not isinstance(want, int) or have == want or place == axis
        for place, (have, want) in enumerate(zip(shape, spec.shape, strict=True))
    )


def relaid(rows: np.ndarray, old: Axis, new: Axis) -> np.ndarray:
    """The rows of samples of an input whose batch axis, of size 1, is taken for another one."""
    whole = rows if old is None else np.expand_dims(rows, 1 + old)
    return whole if new is None else whole.squeeze(1 + new)


def _moved(array: Rows, axis: int) -> np.ndarray:
    return np.moveaxis(_read(array), axis, 0)


def _read(array: Rows) -> np.ndarray:
    return array[:] if isinstance(array, RowFile) else array


def sized(
    specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]], axes: BatchAxes
) -> list[InputSpec]:
    """The inputs with their open axes, except the batch axis and those of its name, as in `shapes`, by name."""
    batch = batch_dims(specs, axes)

    def size(spec: InputSpec, axis: int, dim: Dim) -> Dim:
        kept = isinstance(dim, int) or axis == axes.of(spec.name) or dim in batch
        return dim if kept else shapes[spec.name][axis]

    return [
        replace(spec, shape=tuple(size(spec, axis, dim) for axis, dim in enumerate(spec.shape)))
        if spec.name in shapes
        else spec
        for spec in specs
    ]


def batch_dims(specs: Sequence[InputSpec], axes: BatchAxes) -> set[str]:
    """The names of the batch axis."""
    dims = (spec.shape[axis] for spec in specs if (axis := axes.of(spec.name)) is not None and spec.shape)
    return {dim for dim in dims if isinstance(dim, str) and not is_nameless(dim)}


# Names that mean nothing.
_NO_NAME = re.compile(r"^(\?|none|unk__?\d*|unknown.*)?$", re.IGNORECASE)


def is_nameless(dim: Dim) -> bool:
    """Whether a dim is open and has no name that means anything."""
    return dim is None or (isinstance(dim, str) and _NO_NAME.match(dim) is not None)

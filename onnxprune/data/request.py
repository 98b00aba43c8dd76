"""What is asked of a reader: the inputs to read, how images become inputs, and which part of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from onnxprune.data.axes import BatchAxes
from onnxprune.data.axis_choice import declared_axes
from onnxprune.data.specs import Dim, InputSpec

TRAIN, VALIDATION = "train", "val"


@dataclass(frozen=True)
class Request:
    """The inputs of a model; `transform` and `label_offset`: see the settings of those names.

    `split`: which part is meant where data names several, as a YAML file of Ultralytics does. `axes`: where samples lie
    in arrays that are as the model takes them.
    """

    specs: Sequence[InputSpec]
    transform: str | None = None
    label_offset: int = 0
    split: str = TRAIN
    axes: BatchAxes | None = None

    def __post_init__(self) -> None:
        if self.axes is None:
            object.__setattr__(self, "axes", declared_axes(self.specs))

    def batch_axes(self) -> BatchAxes:
        """The batch axes, those that the dims make likely where none were given."""
        assert self.axes is not None
        return self.axes

    @cached_property
    def row_specs(self) -> list[InputSpec]:
        """The inputs with their samples along the first axis, as data that has a row for each sample gives them."""
        axes = self.batch_axes()

        def first(spec: InputSpec) -> Dim:
            axis = axes.of(spec.name)
            return None if axis is None else spec.shape[axis]

        return [replace(spec, shape=(first(spec), *axes.sample_dims(spec))) for spec in self.specs]

    def rows(self, arrays: Mapping[str, Any], count: int | None = None) -> dict[str, Any]:
        """Arrays as the model takes them with samples along the first axis, see `BatchAxes.rows`."""
        return self.batch_axes().rows(arrays, self.specs, count)

"""Removal of groups from every constant, shape and attribute of a model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.surgery.dims import settle_sizes
from onnxprune.surgery.tables import REWRITES, Axis, key
from onnxprune.surgery.units import Units


def remove_groups(units: Units, alive: np.ndarray) -> None:
    """Reduce every axis to the positions whose group is `alive` (bool by group number), in place.

    What the removed positions contribute to the outputs is lost, unless it is folded into biases.
    """
    kept = _kept_positions(units, alive)
    settle_sizes(units.facts, kept)
    by_value: dict[ir.Value, dict[int, np.ndarray]] = {}
    for axis, positions in kept.items():
        by_value.setdefault(axis.value, {})[axis.dim] = positions
    for value, by_axis in by_value.items():
        tensor, array = constant_tensor(value), units.facts.constant(value)
        if tensor is not None and array is not None:
            for index, positions in by_axis.items():
                array = np.take(array, positions, axis=index)
            set_constant(value, array, tensor.dtype)
        elif value.shape is not None:
            _reduce_shape(value, by_axis)

    def kept_of(axis: Axis) -> np.ndarray:
        return alive[units.groups(axis)] if axis in units else np.ones(0, bool)

    for node in units.facts.nodes():
        span = units.spans.get(node)
        if span is not None:
            if node is span.nodes[-1]:
                span.rewrite(units.facts, kept_of)
            continue
        rewrite = REWRITES.get(key(node))
        if rewrite is not None and any(value in by_value for value in (*node.inputs, *node.outputs)):
            rewrite(node, units.facts, kept_of)


def _kept_positions(units: Units, alive: np.ndarray) -> dict[Axis, np.ndarray]:
    """The remaining positions of each axis that loses any."""
    starts = units.starts()
    if not len(starts):
        return {}
    living = alive[units.all_groups()]
    shrinks = ~np.logical_and.reduceat(living, starts)
    ends = np.append(starts[1:], len(living))
    return {
        axis: np.flatnonzero(living[start:end])
        for axis, start, end, shrink in zip(units.axes(), starts, ends, shrinks, strict=True)
        if shrink
    }


def _reduce_shape(value: ir.Value, kept: dict[int, np.ndarray]) -> None:
    assert value.shape is not None
    value.shape = ir.Shape(
        [
            len(kept[index]) if index in kept and isinstance(dim, int) else dim
            for index, dim in enumerate(value.shape)
        ]
    )

"""Removal: given which groups stay, every constant, shape and attribute of the model is cut to them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.surgery.tables import REWRITES, Axis, key
from onnxprune.surgery.units import Units


def remove_groups(units: Units, alive: np.ndarray) -> None:
    """Cut every axis to the positions whose group is `alive` (bool by group number), in place.

    What the removed positions did to the model's outputs is gone with them: fold it away before, or mean to lose it.
    """
    kept = _kept_positions(units, alive)
    by_value: dict[ir.Value, dict[int, np.ndarray]] = {}
    for axis, positions in kept.items():
        by_value.setdefault(axis.value, {})[axis.dim] = positions
    for value, cuts in by_value.items():
        tensor, array = constant_tensor(value), units.facts.constant(value)
        if tensor is not None and array is not None:
            for index, positions in cuts.items():
                array = np.take(array, positions, axis=index)
            set_constant(value, array, tensor.dtype)
        elif value.shape is not None:
            _cut_shape(value, cuts)

    def kept_of(axis: Axis) -> np.ndarray:
        return alive[units.groups(axis)] if axis in units else np.ones(0, bool)

    for node in units.facts.nodes():
        rewrite = REWRITES.get(key(node))
        if rewrite is not None and any(value in by_value for value in (*node.inputs, *node.outputs)):
            rewrite(node, units.facts, kept_of)


def _kept_positions(units: Units, alive: np.ndarray) -> dict[Axis, np.ndarray]:
    """The positions that stay, of those axes that lose any."""
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


def _cut_shape(value: ir.Value, cuts: dict[int, np.ndarray]) -> None:
    assert value.shape is not None
    value.shape = ir.Shape(
        [
            len(cuts[index]) if index in cuts and isinstance(dim, int) else dim
            for index, dim in enumerate(value.shape)
        ]
    )

"""Reductions: every axis that is not reduced is passed on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Coupling, passes_channels, passes_constants

KEEP_CONSTANTS = ("ReduceMean", "ReduceMax", "ReduceMin")


@passes_channels(
    *KEEP_CONSTANTS,
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
def reduction(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple the remaining axes with their positions in the output."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    reduced = _reduced_axes(node, facts)
    if data is None or shape is None or reduced is None:
        return
    kept = [axis for axis in range(len(shape)) if axis not in reduced]
    for place, axis in enumerate(kept):
        if isinstance(shape[axis], int):
            yield Coupling(Axis(data, axis), Axis(node.outputs[0], axis if _keeps_axes(node) else place))


@passes_constants(*KEEP_CONSTANTS)
def reduction_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Elements that are constant along the reduced axes equal their mean, maximum and minimum."""
    known = facts.known(node.inputs[0])
    reduced = _reduced_axes(node, facts)
    if known is None or reduced is None or any(known.shape[axis] != 1 for axis in reduced):
        return None
    return known if _keeps_axes(node) else known.squeeze(axis=reduced)


def _keeps_axes(node: ir.Node) -> bool:
    return node.attributes.get_int("keepdims", 1) == 1


def _reduced_axes(node: ir.Node, facts: Facts) -> tuple[int, ...] | None:
    """The axes, counted from the front; None where they are computed in the graph."""
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return None
    axes: tuple[int, ...] | None = tuple(node.attributes.get_ints("axes", ()))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = facts.constant(node.inputs[1])
        axes = None if array is None else tuple(int(axis) for axis in array)
    if axes is None:
        return None
    if not axes and not node.attributes.get_int("noop_with_empty_axes", 0):
        return tuple(range(len(shape)))
    return tuple(sorted(axis % len(shape) for axis in axes))

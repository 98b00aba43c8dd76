"""Numpy's broadcasting, as couplings: axes are aligned from the right."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir

from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Coupling


def couple_broadcast(
    value: ir.Value | None, out: ir.Value, facts: Facts, skip: Collection[int] = ()
) -> Iterator[Coupling]:
    """Couple each axis of `value` with the corresponding axis of `out`, except stretched ones of length 1.

    `skip`: axes of `out` that another rule couples.
    """
    shape, out_shape = facts.shape(value), facts.shape(out)
    if value is None or shape is None or out_shape is None or len(shape) > len(out_shape):
        return
    for axis, length in enumerate(shape):
        out_axis = axis + len(out_shape) - len(shape)
        if out_axis not in skip and isinstance(length, int) and length == out_shape[out_axis]:
            yield Coupling(Axis(value, axis), Axis(out, out_axis))


def couple_axes(a: ir.Value, b: ir.Value, axes: Collection[int], facts: Facts) -> Iterator[Coupling]:
    """Couple the same axes of two values, if both have the same static length."""
    a_shape, b_shape = facts.shape(a), facts.shape(b)
    if a_shape is None or b_shape is None:
        return
    for axis in axes:
        if isinstance(a_shape[axis], int) and a_shape[axis] == b_shape[axis]:
            yield Coupling(Axis(a, axis), Axis(b, axis))

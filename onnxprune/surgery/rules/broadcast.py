"""Numpy's broadcasting, as couplings: axes are aligned from the right."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import onnx_ir as ir

from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Coupling, Stays


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


def freeze_unknown(
    values: Iterable[ir.Value | None], out: ir.Value, facts: Facts, skip: Collection[int] = ()
) -> Iterator[Stays]:
    """Freeze each axis of `out` along which the length of an operand is not known: it may be coupled, or stretched."""
    out_shape = facts.shape(out)
    if out_shape is None:
        return
    for value in values:
        if value is None:
            continue
        shape = facts.shape(value)
        lengths = (None,) * len(out_shape) if shape is None else shape
        for axis, length in enumerate(lengths, len(out_shape) - len(lengths)):
            if (
                axis >= 0
                and axis not in skip
                and not isinstance(length, int)
                and isinstance(out_shape[axis], int)
            ):
                yield Stays(Axis(out, axis), f"the size of {value.name!r} along it is not known")


def couple_axes(a: ir.Value, b: ir.Value, axes: Collection[int], facts: Facts) -> Iterator[Coupling]:
    """Couple the same axes of two values, if both have the same static length."""
    a_shape, b_shape = facts.shape(a), facts.shape(b)
    if a_shape is None or b_shape is None:
        return
    for axis in axes:
        if isinstance(a_shape[axis], int) and a_shape[axis] == b_shape[axis]:
            yield Coupling(Axis(a, axis), Axis(b, axis))

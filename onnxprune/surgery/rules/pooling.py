"""Pooling: Y[n, c, p] = pool over q of X[n, c, p + q], each channel on its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.broadcast import couple_axes
from onnxprune.surgery.tables import Coupling, passes_channels, passes_constants

GLOBAL = ("GlobalAveragePool", "GlobalMaxPool")


@passes_channels("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalLpPool")
def pool(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple batch and channels, unless MaxPool also has its indices output, which counts through all channels."""
    if node.inputs[0] is not None and len(node.outputs) == 1:
        yield from couple_axes(node.inputs[0], node.outputs[0], (0, 1), facts)


@passes_constants("MaxPool", "AveragePool", *GLOBAL)
def pool_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """A constant channel stays constant, unless padding affects the result.

    MaxPool pads with -inf, which is never the maximum of a window. AveragePool ignores padding, unless
    `count_include_pad` is set: then only zero stays constant. With `ceil_mode`, a window may contain only padding.
    """
    known = facts.known(node.inputs[0])
    shape = facts.shape(node.inputs[0])
    if known is None or shape is None or (node.op_type not in GLOBAL and _may_miss(node)):
        return None
    even = known
    for axis in range(2, known.ndim):
        even = _one_position(even, axis)
    if node.op_type == "AveragePool" and _counts_padding(node):
        even = np.ma.masked_where(even != 0, even)
    return even


def _one_position(known: np.ma.MaskedArray, axis: int) -> np.ma.MaskedArray:
    """The first position along `axis`, masked where the others differ from it."""
    first = np.take(known.data, [0], axis)
    mask = (np.ma.getmaskarray(known) | (known.data != first)).any(axis=axis, keepdims=True)
    return np.ma.array(first, mask=mask)


def _counts_padding(node: ir.Node) -> bool:
    attributes = node.attributes
    return attributes.get_int("count_include_pad", 0) == 1 and (
        attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
        or any(attributes.get_ints("pads", ()))
        or attributes.get_int("ceil_mode", 0) == 1
    )


def _may_miss(node: ir.Node) -> bool:
    """Whether a window may contain only padding: with ceil_mode, and pads or strides larger than the kernel."""
    if not node.attributes.get_int("ceil_mode", 0):
        return False
    kernel = node.attributes.get_ints("kernel_shape", ())
    strides = node.attributes.get_ints("strides", ()) or (1,) * len(kernel)
    return any(node.attributes.get_ints("pads", ())) or any(
        s > k for s, k in zip(strides, kernel, strict=True)
    )

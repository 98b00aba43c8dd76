"""Reductions: every axis that is not reduced is passed on. GlobalAveragePool is the mean over all axes behind two."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.constants import become, free_name, new_initializer
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.contraction import summed
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Coupling,
    Kept,
    passes_channels,
    passes_constants,
    rewrites,
)

POOL = "GlobalAveragePool"  # tf2onnx writes it for the mean over the last of three axes
MEANS = ("ReduceMean", POOL)
KEEP_CONSTANTS = ("ReduceMean", "ReduceMax", "ReduceMin")
# Positions that are always 0 add nothing to these.
SUMS = (*MEANS, "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
REDUCTIONS = (
    *KEEP_CONSTANTS,
    POOL,
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)


@passes_channels(*REDUCTIONS)
def reduction(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple the remaining axes with their positions in the output; what is always 0 can leave a sum."""
    data, shape = node.inputs[0], facts.shape(node.inputs[0])
    reduced = reduced_axes(node, facts)
    if data is None or shape is None or reduced is None:
        return
    kept = [axis for axis in range(len(shape)) if axis not in reduced]
    for place, axis in enumerate(kept):
        if isinstance(shape[axis], int):
            yield Coupling(Axis(data, axis), Axis(node.outputs[0], axis if keeps_axes(node) else place))
    for axis in reduced if node.op_type in SUMS else ():
        if isinstance(shape[axis], int):
            yield summed(node, Axis(data, axis))


@passes_constants(*KEEP_CONSTANTS)
def reduction_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """Elements that are constant along the reduced axes equal their mean, maximum and minimum."""
    known = facts.known(node.inputs[0])
    reduced = reduced_axes(node, facts)
    if known is None or reduced is None or any(known.shape[axis] != 1 for axis in reduced):
        return None
    return known if keeps_axes(node) else known.squeeze(axis=reduced)


@rewrites(*MEANS)
def mean_of_more(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """The mean over fewer positions, times how much larger it is: the node becomes this product."""
    data, reduced, graph = node.inputs[0], reduced_axes(node, facts), node.graph
    if data is None or reduced is None or graph is None:
        return
    kept = [kept_of(Axis(data, axis)) for axis in reduced]
    share = float(np.prod([part.mean() for part in kept if len(part)]))
    if share == 1.0:
        return
    mean = ir.Node(
        node.domain,
        node.op_type,
        node.inputs,
        node.attributes.values(),
        name=f"{node.name}_mean" if node.name else None,
    )
    out, dtype = node.outputs[0], facts.dtype(data) or facts.dtype(node.outputs[0]) or ir.DataType.FLOAT
    made = mean.outputs[0]
    made.name, made.shape, made.type = free_name(graph, f"{out.name}_mean"), out.shape, ir.TensorType(dtype)
    graph.insert_before(node, mean)
    factor = new_initializer(graph, f"{out.name}_share", np.array(share, dtype.numpy()), dtype)
    become(node, "Mul", (made, factor))


def keeps_axes(node: ir.Node) -> bool:
    """Whether the reduced axes stay, with length 1."""
    return node.attributes.get_int("keepdims", 1) == 1


def reduced_axes(node: ir.Node, facts: Facts) -> tuple[int, ...] | None:
    """The axes, counted from the front; None where they are computed in the graph."""
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return None
    if node.op_type == POOL:
        return tuple(range(2, len(shape)))
    axes: tuple[int, ...] | None = tuple(node.attributes.get_ints("axes", ()))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = facts.constant(node.inputs[1])
        axes = None if array is None else tuple(int(axis) for axis in array)
    if axes is None:
        return None
    if not axes and not node.attributes.get_int("noop_with_empty_axes", 0):
        return tuple(range(len(shape)))
    return tuple(sorted(axis % len(shape) for axis in axes))

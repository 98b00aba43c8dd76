"""Common parts of Conv, Gemm, MatMul and their kin: sums of products over an axis that data and weight share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.names import name_of
from onnxprune.surgery.facts import Facts, weight_matrix
from onnxprune.surgery.tables import Axis, Contraction


def contract_constants(
    data: Axis, weight: Axis, weight_out: Axis, facts: Facts, *, groups: int = 1, zero_only: bool = False
) -> np.ma.MaskedArray | None:
    """The constant output units, (out,); None if there are none, or the weight is not constant.

    A unit is constant if every input that its weights read is constant. With `zero_only`, only inputs that are always
    zero count, because the borders of a padded convolution read zeros instead of any other constant.
    """
    connections = facts.connections(weight.value, weight_out.dim, weight.dim)
    if connections is None:
        return None
    inputs = facts.along(data)
    varies = np.ma.getmaskarray(inputs)
    constants = inputs.filled(0).astype(np.float64)
    if zero_only:
        varies = varies | (constants != 0)
        constants = np.zeros_like(constants)
    mask = connections.readers(varies.reshape(groups, -1))
    if mask.all():
        return None
    out = len(mask)
    constants = np.where(varies, 0, constants).reshape(groups, -1)
    total = np.zeros(out)
    used = np.flatnonzero(constants.any(axis=0))
    array = facts.constant(weight.value)
    assert array is not None
    if used.size:
        matrix = weight_matrix(array, weight_out.dim, weight.dim)[:, used]
        sums = matrix.sum(axis=2, dtype=np.float64).reshape(groups, out // groups, used.size)
        total = np.einsum("gok,gk->go", sums, constants[:, used]).reshape(out)
    return np.ma.array(total.astype(array.dtype), mask=mask)


def measured(node: ir.Node, data: ir.Value, facts: Facts) -> Iterator[Contraction]:
    """The range over all elements is taken: a position is needed unless it is a constant."""
    for axis in range(len(facts.shape(data) or ())):
        at = Axis(data, axis)
        if facts.length(at) is not None:
            yield Contraction(node, at, at, None, None, measures=True)


def summed(node: ir.Node, at: Axis) -> Contraction:
    """A sum over an axis is taken, of absolute values or squares perhaps: a position is needed unless it is zero."""
    refusal = f"{node.op_type} {name_of(node)!r} sums over it"
    return Contraction(node, at, at, None, None, refusal=refusal)

"""GatherND, which torch.onnx (dynamo=True) writes for a list of positions: y = x[[...]], with other axes behind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.surgery.constants import replace_operand
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Coupling, Kept, passes_channels, passes_constants, rewrites


@passes_channels("GatherND")
def gather_nd(node: ir.Node, facts: Facts) -> Iterator[Coupling]:
    """Couple the axes behind those that are indexed one to one, and positions of the first one that a list selects."""
    (data, index), out = node.inputs, node.outputs[0]
    shape, rows, indexed = facts.shape(data), facts.shape(index), _indexed(node, facts)
    if data is None or index is None or shape is None or rows is None or indexed is None:
        return
    for axis in range(indexed, len(shape)):
        if facts.length(Axis(data, axis)) is not None:
            yield Coupling(Axis(data, axis), Axis(out, axis - indexed + len(rows) - 1))
    places, length = _listed(node, facts), facts.length(Axis(data, 0))
    if places is not None and length is not None:
        yield Coupling(Axis(data, 0), Axis(out, 0), places % length, np.arange(len(places)))
        if constant_tensor(index) is not None:
            yield Coupling(Axis(index, 0), Axis(out, 0))


@passes_constants("GatherND")
def gathered_constants(node: ir.Node, facts: Facts) -> np.ma.MaskedArray | None:
    """What is the same wherever it is taken from, such as a channel of zeros behind the indexed axes."""
    known, rows, indexed = facts.known(node.inputs[0]), facts.shape(node.inputs[1]), _indexed(node, facts)
    if known is None or rows is None or indexed is None:
        return None
    flat = np.ma.reshape(known, (-1, *known.shape[indexed:]))
    mask = ((flat.data != flat.data[:1]) | np.ma.getmaskarray(flat)).any(axis=0)
    made = (*(1,) * (len(rows) - 1), *flat.shape[1:])
    return np.ma.array(flat.data[0].reshape(made), mask=mask.reshape(made))


@rewrites("GatherND")
def gathered_places(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the indices to the remaining positions."""
    data, places = node.inputs[0], _listed(node, facts)
    kept = np.ones(0, bool) if data is None or places is None else kept_of(Axis(data, 0))
    if places is None or not len(kept) or kept.all():
        return
    remaining = places[kept[places % len(kept)]] % len(kept)
    renumbered = (np.cumsum(kept) - 1)[remaining].astype(places.dtype)[:, np.newaxis]
    replace_operand(node, 1, renumbered, ir.DataType.from_numpy(places.dtype))


def _indexed(node: ir.Node, facts: Facts) -> int | None:
    """How many axes of the data the indices are for, those of the batch among them."""
    rows = facts.shape(node.inputs[1])
    if not rows or not isinstance(rows[-1], int):
        return None
    return node.attributes.get_int("batch_dims", 0) + rows[-1]


def _listed(node: ir.Node, facts: Facts) -> np.ndarray | None:
    """The positions of the first axis, where the indices are a list of them."""
    rows = facts.constant(node.inputs[1])
    listed = rows is not None and rows.ndim == 2 and rows.shape[1] == 1
    return (
        rows[:, 0] if rows is not None and listed and not node.attributes.get_int("batch_dims", 0) else None
    )

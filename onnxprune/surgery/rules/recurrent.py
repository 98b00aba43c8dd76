"""LSTM, GRU and RNN: a hidden unit is its row in each gate of W and R, its biases, its column of R, its initial state.

    gates = W x + R h + Wb + Rb (+ P c), h' = f(gates, h): W is (directions, gates * hidden, inputs)

Both directions of a bidirectional layer share one hidden size, so unit h is removed from both. DynamicQuantizeLSTM has
the last two axes of both weights the other way around, and takes the ranges of x and h.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.model.encoding import on_axis
from onnxprune.model.names import name_of
from onnxprune.model.operands import operand
from onnxprune.model.slots import MICROSOFT
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.rules.contraction import measured
from onnxprune.surgery.tables import (
    Axis,
    Claim,
    Contraction,
    Coupling,
    Kept,
    Stays,
    passes_channels,
    passes_constants,
    rewrites,
)

QUANTIZED = "DynamicQuantizeLSTM"
GATES = {"LSTM": 4, QUANTIZED: 4, "GRU": 3, "RNN": 1}
PEEPHOLES = 3
W, R, B, INITIAL_H, INITIAL_C, P = 1, 2, 3, 5, 6, 7
PARAMETERS = range(8, 12)  # scales and zero points of W and R: (directions) or (directions, gates * hidden)
CELL = 3  # the gate that a new cell state comes from, after input, output and forget gate


@passes_channels("LSTM", "GRU", "RNN")
@passes_channels(QUANTIZED, domain=MICROSOFT)
def recurrent(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple inputs with columns of W, and hidden units with their rows, columns of R, states and outputs."""
    data, w, r = node.inputs[0], node.inputs[W], node.inputs[R]
    gates = GATES[node.op_type]
    if data is None or w is None or r is None or facts.shape(data) is None or facts.rank(data) != 3:
        return
    row_axis, column_axis = _axes(node)
    unit, gate_rows = Axis(r, column_axis), (Axis(w, row_axis), Axis(r, row_axis))
    hidden, rows = facts.length(unit), facts.length(gate_rows[1])
    if hidden is None or rows != gates * hidden or facts.length(gate_rows[0]) != rows:
        return
    outs = [value for value in node.outputs if value is not None and value.name]
    if not outs or any(facts.shape(value) is None for value in outs):
        return
    for out in outs:
        yield Coupling(unit, Axis(out, facts.rank(out) - 1))
    vectors = [(operand(node, B), 2 * gates), (operand(node, P), PEEPHOLES)]
    for value in (operand(node, place) for place in PARAMETERS if node.op_type == QUANTIZED):
        if value is not None and facts.shape(value) is not None and facts.rank(value) > 1:
            vectors.append((value, gates))
    runs = [*((axis, gates) for axis in gate_rows)]
    runs += [(Axis(value, 1), count) for value, count in vectors if value is not None]
    for axis, count in runs:
        positions = np.arange(count * hidden)
        yield Coupling(axis, unit, positions, positions % hidden)
    for state in (INITIAL_H, INITIAL_C):
        value = operand(node, state)
        if value is not None and facts.length(Axis(value, 2)) == hidden:
            yield Coupling(Axis(value, 2), unit)
        elif value is not None:
            yield Stays(unit, f"the size of the state {value.name!r} is not known")
    refusal = f"the recurrent layer {name_of(node)!r} reads it"
    columns = Axis(w, column_axis)
    yield Contraction(node, Axis(data, 2), columns, gate_rows[0], gate_rows[0], refusal=refusal)
    # The layer reads its own state; any of its outputs can represent it.
    yield Contraction(
        node, Axis(outs[0], facts.rank(outs[0]) - 1), unit, gate_rows[1], gate_rows[1], refusal=refusal
    )

    if node.op_type == QUANTIZED:
        yield from measured(node, data, facts)
        yield from measured(node, outs[0], facts)


@passes_constants("LSTM")
@passes_constants(QUANTIZED, domain=MICROSOFT)
def lstm_constants(node: ir.Node, facts: Facts) -> list[np.ma.MaskedArray | None] | None:
    """A unit is always 0 if its new cell state is, and its states are 0 at first."""
    data, w, r = node.inputs[0], node.inputs[W], node.inputs[R]
    row_axis, column_axis = _axes(node)
    hidden = None if r is None else facts.length(Axis(r, column_axis))
    if data is None or w is None or r is None or not hidden or node.attributes.get("activations") is not None:
        return None
    varies = np.zeros(hidden, bool)
    for value, axis in ((w, row_axis), (r, row_axis), (operand(node, B), 1)):
        array = None if value is None else facts.present(value)
        if value is not None and array is None:
            return None
        if array is not None:
            gates = np.moveaxis(array, axis, 0).reshape(
                -1, GATES[node.op_type], hidden, array.size // array.shape[axis]
            )
            varies |= (gates[:, CELL] != 0).any(axis=(0, 2))
    for place in (INITIAL_H, INITIAL_C):
        state = operand(node, place)
        if state is not None:
            known = facts.length(Axis(state, 2)) == hidden
            varies |= facts.along(Axis(state, 2)).filled(1) != 0 if known else True
    dtype = facts.dtype(data) or ir.DataType.FLOAT
    zeros = np.ma.array(np.zeros(hidden, dtype.numpy()), mask=varies)
    ranks = [None if facts.shape(out) is None else facts.rank(out) for out in node.outputs]
    return [None if rank is None else on_axis(zeros, rank - 1, rank) for rank in ranks]


@rewrites("LSTM", "GRU", "RNN")
@rewrites(QUANTIZED, domain=MICROSOFT)
def hidden_size(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the hidden size."""
    weight = node.inputs[R]
    assert weight is not None
    kept = kept_of(Axis(weight, _axes(node)[1]))
    if not kept.all():
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", int(kept.sum()))


def _axes(node: ir.Node) -> tuple[int, int]:
    """The axes of gates and of inputs in both weights."""
    return (2, 1) if node.op_type == QUANTIZED else (1, 2)

"""LSTM, GRU and RNN: a hidden unit is its row in each gate of W and R, its biases, its column of R, its initial state.

    gates = W x + R h + Wb + Rb (+ P c), h' = f(gates, h): W is (directions, gates * hidden, inputs)

Both directions of a bidirectional layer share one hidden size, so unit h is removed from both.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Claim, Contraction, Coupling, Kept, passes_channels, rewrites

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PEEPHOLES = 3
W, R, B, INITIAL_H, INITIAL_C, P = 1, 2, 3, 5, 6, 7


@passes_channels("LSTM", "GRU", "RNN")
def recurrent(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Couple inputs with columns of W, and hidden units with their rows, columns of R, states and outputs."""
    data, w, r = node.inputs[0], node.inputs[W], node.inputs[R]
    gates = GATES[node.op_type]
    if data is None or w is None or r is None or facts.shape(data) is None or facts.rank(data) != 3:
        return
    hidden, rows = facts.length(Axis(r, 2)), facts.length(Axis(r, 1))
    if hidden is None or rows != gates * hidden or facts.length(Axis(w, 1)) != rows:
        return
    unit = Axis(r, 2)
    outs = [value for value in node.outputs if value is not None and value.name]
    if not outs or any(facts.shape(value) is None for value in outs):
        return
    for out in outs:
        yield Coupling(unit, Axis(out, facts.rank(out) - 1))
    for value, runs in ((w, gates), (r, gates), (_input(node, B), 2 * gates), (_input(node, P), PEEPHOLES)):
        if value is not None:
            positions = np.arange(runs * hidden)
            yield Coupling(Axis(value, 1), unit, positions, positions % hidden)
    for state in (INITIAL_H, INITIAL_C):
        value = _input(node, state)
        if value is not None and facts.shape(value) is not None:
            yield Coupling(Axis(value, 2), unit)
    refusal = f"the recurrent layer {node.name!r} reads it"
    gate_rows = Axis(w, 1), Axis(r, 1)
    yield Contraction(node, Axis(data, 2), Axis(w, 2), gate_rows[0], gate_rows[0], refusal=refusal)
    # The layer reads its own state; any of its outputs can represent it.
    yield Contraction(
        node, Axis(outs[0], facts.rank(outs[0]) - 1), unit, gate_rows[1], gate_rows[1], refusal=refusal
    )


@rewrites("LSTM", "GRU", "RNN")
def hidden_size(node: ir.Node, facts: Facts, kept_of: Kept) -> None:
    """Update the hidden size."""
    weight = node.inputs[R]
    assert weight is not None
    kept = kept_of(Axis(weight, 2))
    if not kept.all():
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", int(kept.sum()))


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None

"""Initializers that a file lists among the inputs of its graph: a habit of older exporters, or meant to be overridden.

Before IR version 4, all of them had to be listed. Since then, a listed one is the default of an input that callers may
give, and nothing that it changes is known. Exporters went on listing all of them, and whoever has such a file takes
them for constants. A few that are listed among many that are not are meant.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.slots import slots

FIRST_IR_WITH_DEFAULTS = 4
# The share of the weights from which on listing is a habit.
HABIT = 0.5


def unlist(model: ir.Model) -> tuple[str, ...]:
    """Take listed initializers out of the inputs, in place, if most weights are listed; returns their names."""
    inputs = model.graph.inputs
    listed = [value for value in inputs if value.is_initializer() and constant_tensor(value) is not None]
    if model.ir_version < FIRST_IR_WITH_DEFAULTS or not listed:
        return ()
    weights = {
        value
        for node in model.graph.all_nodes()
        for slot in slots(node)
        if slot.input_index < len(node.inputs)
        and constant_tensor(value := node.inputs[slot.input_index]) is not None
    }
    if len(weights.intersection(listed)) <= HABIT * len(weights):
        return ()
    for value in listed:
        inputs.remove(value)
    return tuple(value.name or "" for value in listed)


def relist(model: ir.Model, names: Iterable[str]) -> None:
    """Put initializers back among the inputs, in place."""
    for name in names:
        value = model.graph.initializers.get(name)
        if value is not None and value not in model.graph.inputs:
            model.graph.inputs.append(value)

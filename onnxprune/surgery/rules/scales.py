"""The scales and zero points of operands of operators that compute with integers, by the table of slots."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.model.operands import operand
from onnxprune.model.slots import Integers, slots
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Coupling


def zero_point(node: ir.Node, index: int, facts: Facts) -> float | None:
    """What stands for 0 in `node.inputs[index]`; None where it is not known, or not one number."""
    integers = _integers(node, index)
    return 0.0 if integers is None else only_number(operand(node, integers.zero_point), facts)


def only_number(value: ir.Value | None, facts: Facts) -> float | None:
    """A constant of one number, or as many as one likes that are the same; 0 where it is absent."""
    if value is None:
        return 0.0
    array = facts.constant(value)
    if array is None or not array.size or (array != array.flat[0]).any():
        return None
    return float(array.flat[0])


def couple_scales(node: ir.Node, index: int, channels: Axis, facts: Facts) -> tuple[Coupling, ...] | None:
    """Scales and zero points of `node.inputs[index]`, one or one for each channel; None where they are others."""
    integers, found = _integers(node, index), []
    for place in () if integers is None else (integers.scale, integers.zero_point):
        value = None if place is None else operand(node, place)
        if value is None or is_one(value, facts):
            continue
        shape = facts.shape(value) or ()
        if not shape or shape[-1] != facts.length(channels) or any(length != 1 for length in shape[:-1]):
            return None
        found.append(Coupling(Axis(value, len(shape) - 1), channels))
    return tuple(found)


def is_one(value: ir.Value | None, facts: Facts) -> bool:
    """Whether there is one number for all, or none."""
    shape = facts.shape(value)
    return value is None or (shape is not None and all(length == 1 for length in shape))


def _integers(node: ir.Node, index: int) -> Integers | None:
    return next((slot.integers for slot in slots(node) if slot.input_index == index), None)

"""Einsum of one or two operands: axes with the same letter are coupled; a shared letter not in the output is summed."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxprune.model.names import name_of
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.tables import Axis, Claim, Contraction, Coupling, passes_channels


@passes_channels("Einsum")
def einsum(node: ir.Node, facts: Facts) -> Iterator[Claim]:
    """Letters of the output are passed on; a letter that is summed over one operand, or repeated in one, is not."""
    terms, result = _letters(node.attributes["equation"].as_string())
    operands = [value for value in node.inputs if value is not None]
    if len(operands) > 2 or len(terms) != len(operands):
        return
    if any(
        facts.shape(value) is None or facts.rank(value) != len(term)
        for value, term in zip(operands, terms, strict=True)
    ):
        return
    if any(len(set(term)) != len(term) for term in (*terms, result)) or facts.shape(node.outputs[0]) is None:
        return
    places = [
        {letter: Axis(value, at) for at, letter in enumerate(term)}
        for value, term in zip(operands, terms, strict=True)
    ]
    out = {letter: Axis(node.outputs[0], at) for at, letter in enumerate(result)}
    for of_operand in places:
        for letter, axis in of_operand.items():
            if letter in out and facts.length(axis) == facts.length(out[letter]) is not None:
                yield Coupling(axis, out[letter])
    if len(operands) == 2:
        weight, data = (0, 1) if facts.constant(operands[0]) is not None else (1, 0)
        own = next((letter for letter in terms[weight] if letter in out and letter not in terms[data]), None)
        for letter in (letter for letter in terms[0] if letter in terms[1] and letter not in out):
            yield Contraction(
                node,
                places[data][letter],
                places[weight][letter],
                None if own is None else places[weight][own],
                None if own is None else out[own],
                refusal=f"Einsum {name_of(node)!r} has no bias to fold it into",
            )


def _letters(equation: str) -> tuple[list[str], str]:
    """The letters of each operand and of the result; no operands if the equation has an ellipsis or no result."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    return ([], "") if "." in equation or not arrow else (operands.split(","), result)

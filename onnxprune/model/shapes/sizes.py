"""Arithmetic on sizes, symbolic ones among them: what the chains of nodes compute that exporters write for shapes.

A symbolic size is a name, or a product such as "4*N". Everything else that depends on one is unknown.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto

Dim = int | str | None
"""A number, the name of a symbolic dimension or a product with one, or None where nothing is known."""

INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
LARGEST = 64  # elements; longer vectors are not shapes
_FACTOR = re.compile(r"\d+")
COMPARED: Mapping[str, Callable[[int, int], bool]] = {
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
}
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", *COMPARED)
MOVES = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape")


@dataclass(frozen=True)
class Element:
    """An element of an integer array: its value, and the axes (of any kind) whose sizes it is computed from.

    `copied`: the axis whose size it is, unchanged. `stored`: whether it is a constant of the model, or part of an array
    that is known as a whole.
    """

    dim: Dim
    axes: frozenset[Any] = frozenset()
    copied: Any = None
    stored: bool = False


def constants(array: np.ndarray) -> np.ndarray:
    """The elements of a stored array of integers or booleans."""
    return _each(lambda number: Element(int(number), stored=True), array)


class Call(NamedTuple):
    """A node whose first operand is known: its operator, the elements of its inputs, and the shape of its output."""

    op_type: str
    first: np.ndarray
    others: Sequence[np.ndarray | None]
    attributes: Mapping[str, Any]
    shape: Sequence[Dim] | None

    def numbers(self, index: int) -> np.ndarray | None:
        """The elements of an operand after the first one as integers, where all are known."""
        other = self.others[index]
        return None if other is None else _numbers(other)


def evaluate(
    op_type: str,
    operands: Sequence[np.ndarray | None],
    attributes: Mapping[str, Any],
    shape: Sequence[Dim] | None,
) -> np.ndarray | None:
    """The elements of a node's output from those of its inputs (object arrays), of the shape where it is known.

    None where the operator is none of `FOLLOWED`, or the positions of elements are not known.
    """
    if op_type not in FOLLOWED or not operands or operands[0] is None:
        return None
    try:
        found = FOLLOWED[op_type](Call(op_type, operands[0], operands[1:], attributes, shape))
    except (IndexError, ValueError, TypeError):
        # A node that no output needs is never run, and may be invalid.
        return None
    return None if found is None or found.size > LARGEST else found


def factors(dim: Dim) -> tuple[int, tuple[str, ...]] | None:
    """A size as a number and names, sorted: "4*N" is (4, ("N",)); None where it is not known."""
    if dim is None:
        return None
    if isinstance(dim, int):
        return dim, ()
    parts = [part.strip() for part in dim.split("*")]
    numbers = [int(part) for part in parts if _FACTOR.fullmatch(part)]
    names = [part for part in parts if not _FACTOR.fullmatch(part)]
    return (math.prod(numbers), tuple(sorted(names))) if all(names) else (1, (dim,))


def times(*dims: Dim) -> Dim:
    """The product of sizes."""
    number, names = 1, list[str]()
    for dim in dims:
        found = factors(dim)
        if found is None:
            return None
        number *= found[0]
        names += found[1]
    return _dim(number, names)


def over(dim: Dim, by: Dim) -> Dim:
    """The quotient, where it is exact."""
    whole, part = factors(dim), factors(by)
    if whole is None or part is None or not part[0] or whole[0] % part[0]:
        return None
    names = list(whole[1])
    for name in part[1]:
        if name not in names:
            return None
        names.remove(name)
    return _dim(whole[0] // part[0], names)


def _dim(number: int, names: Sequence[str]) -> Dim:
    if not names or not number:
        return number
    return "*".join([*([str(number)] if number != 1 else []), *sorted(names)])


def _concatenated(call: Call) -> np.ndarray | None:
    parts = [part for part in (call.first, *call.others) if part is not None]
    return np.concatenate(parts) if len(parts) == 1 + len(call.others) else None


def _same(call: Call) -> np.ndarray | None:
    return call.first if call.attributes.get("to", INTEGERS[0]) in INTEGERS else None


def _moved(call: Call) -> np.ndarray | None:
    sizes = _static(call.shape)
    return None if sizes is None else call.first.reshape(sizes)


def _reshaped(call: Call) -> np.ndarray | None:
    sizes = call.numbers(0)
    return None if sizes is None else call.first.reshape(sizes.ravel())


def _gathered(call: Call) -> np.ndarray | None:
    places = call.numbers(0)
    return None if places is None else _array(call.first[places])


def _sliced(call: Call) -> np.ndarray | None:
    bounds: list[np.ndarray | None] = [
        np.ravel(call.attributes[name]) if name in call.attributes else None
        for name in ("starts", "ends", "axes")
    ]
    if bounds[0] is None:
        bounds = [None if part is None else _numbers(part) for part in (*call.others, None, None)[:4]]
        if any(part is None and place < len(call.others) for place, part in enumerate(bounds)):
            return None
    starts, ends = bounds[:2]
    if starts is None or ends is None:
        return None
    defaults = np.arange(len(starts)), np.ones(len(starts), int)
    axes, steps = (
        default if part is None else part
        for part, default in zip((*bounds, None)[2:4], defaults, strict=True)
    )
    taken = [slice(None)] * call.first.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # numpy counts the end of a slice backwards from the last position, as ONNX does: what is further is all.
        taken[axis] = slice(*slice(int(start), int(end), int(step)).indices(call.first.shape[axis]))
        if step < 0 and taken[axis].stop < 0:
            taken[axis] = slice(taken[axis].start, None, int(step))
    return call.first[tuple(taken)]


def _transposed(call: Call) -> np.ndarray | None:
    return call.first.transpose(call.attributes.get("perm"))


def _repeated(call: Call) -> np.ndarray | None:
    length, value = _numbers(call.first), np.ravel(call.attributes.get("value", 0.0))
    return None if length is None or value.dtype.kind not in "ib" else constants(np.full(length, value))


def _multiplied(call: Call) -> np.ndarray | None:
    whole, sizes = call.first.ravel(), _static(call.shape)
    product = Element(times(*(element.dim for element in whole)), _axes(*whole))
    return None if sizes is None else np.full(sizes, product, object)


def _chosen(call: Call) -> np.ndarray | None:
    chosen, (left, right) = _numbers(call.first), call.others
    if chosen is None or left is None or right is None:
        return None
    return _each(lambda this, one, other: one if this else other, *np.broadcast_arrays(chosen, left, right))


def _elementwise(call: Call) -> np.ndarray | None:
    (second,) = call.others
    if second is None:
        return None
    both = np.broadcast_arrays(call.first, second)
    return _each(lambda left, right: _combined(call.op_type, left, right), *both)


FOLLOWED: Mapping[str, Callable[[Call], np.ndarray | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    "Cast": _same,
    "Concat": _concatenated,
    "ConstantOfShape": _repeated,
    "Gather": _gathered,
    "Identity": _same,
    "ReduceProd": _multiplied,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Squeeze": _moved,
    "Transpose": _transposed,
    "Unsqueeze": _moved,
    "Where": _chosen,
}
"""The operators that are followed."""


def _combined(op_type: str, left: Element, right: Element) -> Element:
    a, b = left.dim, right.dim
    axes = _axes(left, right)
    if (
        (op_type == "Mul" and b == 1)
        or (op_type == "Div" and b == 1)
        or (op_type in ("Add", "Sub") and b == 0)
    ):
        return left
    if (op_type == "Mul" and a == 1) or (op_type == "Add" and a == 0):
        return right
    stored = left.stored and right.stored
    if isinstance(a, int) and isinstance(b, int):
        return Element(_number(op_type, a, b), axes, stored=stored)
    if op_type == "Equal" and (_negative(a) or _negative(b)):
        return Element(0, axes)
    if op_type == "Mul":
        return Element(times(a, b), axes)
    return Element(over(a, b) if op_type == "Div" else None, axes)


def _number(op_type: str, a: int, b: int) -> int | None:
    if op_type in COMPARED:
        return int(COMPARED[op_type](a, b))
    if op_type in ("Div", "Mod"):
        if not b or a < 0 or b < 0:
            return None
        return a // b if op_type == "Div" else a % b
    return {"Add": a + b, "Sub": a - b, "Mul": a * b, "Max": max(a, b), "Min": min(a, b)}[op_type]


def _negative(dim: Dim) -> bool:
    """Whether it is a number that no size is."""
    return isinstance(dim, int) and dim < 0


def _numbers(elements: np.ndarray) -> np.ndarray | None:
    """The elements as integers, where all are known."""
    dims = [element.dim for element in elements.ravel()]
    return np.array(dims, int).reshape(elements.shape) if all(isinstance(dim, int) for dim in dims) else None


def _axes(*elements: Element) -> frozenset[Any]:
    return frozenset().union(*(element.axes for element in elements))


def _static(shape: Sequence[Dim] | None) -> list[int] | None:
    """A shape whose sizes are all numbers."""
    sizes = [dim for dim in shape or () if isinstance(dim, int)]
    return sizes if shape is not None and len(sizes) == len(shape) else None


def _array(found: Any) -> np.ndarray:
    """An object array; numpy returns the element itself where an index leaves none of the axes."""
    return found if isinstance(found, np.ndarray) else np.full((), found, object)


def _each(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    found = np.empty(arrays[0].shape, object)
    for place in np.ndindex(arrays[0].shape):
        found[place] = function(*(array[place] for array in arrays))
    return found

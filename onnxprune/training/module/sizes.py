"""Arithmetic on shapes while a graph is built: sizes that are known only at run time are symbols among numbers.

So Shape -> Gather -> Concat -> Reshape becomes `x.reshape([y.shape[0], -1])` instead of four tensor operations.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import fx

from onnxprune.training.module.ops.table import opaque

Size = int | fx.Proxy


@dataclass(frozen=True)
class Sizes:
    """An int64 scalar (rank 0) or vector (rank 1) whose elements are numbers or proxies of numbers."""

    elements: tuple[Size, ...]
    rank: int

    def tolist(self) -> Any:
        """As torch.Tensor.tolist: a number or a list, proxies among them."""
        return list(self.elements) if self.rank else self.elements[0]

    def settled(self) -> Sizes | torch.Tensor:
        """A tensor where all elements are numbers."""
        if any(isinstance(element, fx.Proxy) for element in self.elements):
            return self
        return torch.tensor(self.tolist(), dtype=torch.int64)


def symbolic_shape(x: fx.Proxy, rank: int, *, start: int = 0, end: int | None = None) -> Sizes | torch.Tensor:
    """The sizes of the axes of x from `start` to `end`."""
    shape: Any = x.shape
    return Sizes(tuple(shape[axis] for axis in range(rank)[start:end]), 1).settled()


@opaque
def stacked(first: int, *others: int) -> torch.Tensor:
    """Sizes as an int64 vector, at run time."""
    return torch.tensor((first, *others))


def fold(op_type: str, operands: Sequence[Any], attributes: dict[str, Any]) -> Sizes | torch.Tensor | None:
    """The result of an operator on sizes and integer tensors; None if it is not one of those in the table."""
    function = _FOLDED.get(op_type)
    if function is None or any(
        isinstance(operand, torch.Tensor) and operand.dim() > 1 for operand in operands
    ):
        return None
    folded = function(*(_sizes(operand) for operand in operands), **attributes)
    return None if folded is None else folded.settled()


def _sizes(operand: Sizes | torch.Tensor | None) -> Sizes | None:
    if isinstance(operand, torch.Tensor):
        return Sizes(tuple(operand.flatten().tolist()), operand.dim())
    return operand


def _gather(x: Sizes, indices: Sizes, axis: int = 0) -> Sizes | None:
    places = [index for index in indices.elements if isinstance(index, int)]
    if len(places) < len(indices.elements):
        return None
    return Sizes(tuple(x.elements[place] for place in places), indices.rank)


def _concat(*operands: Sizes, axis: int) -> Sizes:
    return Sizes(tuple(element for operand in operands for element in operand.elements), 1)


def _unsqueeze(x: Sizes, axes: Any) -> Sizes | None:
    return None if x.rank else Sizes(x.elements, 1)


def _squeeze(x: Sizes, axes: Any = None) -> Sizes | None:
    return Sizes(x.elements, 0) if len(x.elements) == 1 else None


def _reshape(x: Sizes, shape: Sizes, allowzero: int = 0) -> Sizes | None:
    return Sizes(x.elements, len(shape.elements)) if len(shape.elements) < 2 else None


def _slice(x: Sizes, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Sizes | None:
    start, end, step = (_only(bound) for bound in (starts, ends, steps))
    if any(isinstance(bound, fx.Proxy) for bound in (start, end, step)):
        return None
    return Sizes(x.elements[start:end:step], 1)


def _only(bound: Any) -> Any:
    """The one element of an operand (later opsets) or an attribute (earlier ones); None if absent."""
    return bound.elements[0] if isinstance(bound, Sizes) else bound and bound[0]


def _cast(x: Sizes, to: int) -> Sizes | None:
    return x if to == ir.DataType.INT64 else None


def _arithmetic(operate: Callable[[Size, Size], Size]) -> Callable[[Sizes, Sizes], Sizes]:
    def function(a: Sizes, b: Sizes) -> Sizes:
        length = max(len(a.elements), len(b.elements))
        pairs = zip(
            *(operand.elements * (length // len(operand.elements)) for operand in (a, b)), strict=True
        )
        return Sizes(tuple(operate(x, y) for x, y in pairs), max(a.rank, b.rank))

    return function


_FOLDED: dict[str, Callable[..., Sizes | None]] = {
    "Add": _arithmetic(operator.add),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _arithmetic(operator.floordiv),  # sizes are not negative
    "Gather": _gather,
    "Identity": lambda x: x,
    "Mul": _arithmetic(operator.mul),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _arithmetic(operator.sub),
    "Unsqueeze": _unsqueeze,
}

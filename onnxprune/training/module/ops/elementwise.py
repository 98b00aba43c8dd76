"""Arithmetic, comparison and logic, element by element with numpy's broadcasting."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque
from onnxprune.training.module.ops.types import scalar, torch_dtype

# (operator, the first opset with its current meaning) -> the torch function with the same operands.
_SAME_IN_TORCH: dict[tuple[str, int], Any] = {
    ("Abs", 6): torch.abs,
    ("Acos", 7): torch.acos,
    ("Acosh", 9): torch.acosh,
    ("Add", 7): operator.add,
    ("And", 7): torch.logical_and,
    ("Asin", 7): torch.asin,
    ("Asinh", 9): torch.asinh,
    ("Atan", 7): torch.atan,
    ("Atanh", 9): torch.atanh,
    ("BitwiseAnd", 18): torch.bitwise_and,
    ("BitwiseNot", 18): torch.bitwise_not,
    ("BitwiseOr", 18): torch.bitwise_or,
    ("BitwiseXor", 18): torch.bitwise_xor,
    ("Ceil", 6): torch.ceil,
    ("Cos", 7): torch.cos,
    ("Cosh", 9): torch.cosh,
    ("Equal", 7): torch.eq,
    ("Erf", 9): torch.erf,
    ("Exp", 6): torch.exp,
    ("Floor", 6): torch.floor,
    ("Greater", 7): torch.gt,
    ("GreaterOrEqual", 12): torch.ge,
    ("IsNaN", 9): torch.isnan,
    ("Less", 7): torch.lt,
    ("LessOrEqual", 12): torch.le,
    ("Log", 6): torch.log,
    ("Mul", 7): operator.mul,
    ("Neg", 6): torch.neg,
    ("Not", 1): torch.logical_not,
    ("Or", 7): torch.logical_or,
    ("Reciprocal", 6): torch.reciprocal,
    ("Round", 11): torch.round,
    ("Sigmoid", 6): torch.sigmoid,
    ("Sign", 9): torch.sign,
    ("Sin", 7): torch.sin,
    ("Sinh", 9): torch.sinh,
    ("Sqrt", 6): torch.sqrt,
    ("Sub", 7): operator.sub,
    ("Tan", 7): torch.tan,
    ("Tanh", 6): torch.tanh,
    ("Where", 9): torch.where,
    ("Xor", 7): torch.logical_xor,
}

# Those whose gradient is zero or none.
_STEPS = frozenset(
    {"And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Equal", "Floor", "Greater"}
    | {"GreaterOrEqual", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Round", "Sign", "Xor"}
)

for (_op_type, _since), _function in _SAME_IN_TORCH.items():
    lowers(_op_type, since=_since, gradients=() if _op_type in _STEPS else None)(_function)


@lowers("Div", since=7)
@opaque
def div(a: Tensor, b: Tensor) -> Tensor:
    """a / b; integers are rounded toward zero (ONNX Div-14)."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@lowers("Mod", since=10)
def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """The remainder with the sign of b, or with `fmod` that of a (ONNX Mod-13)."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@lowers("Pow", since=7)
@opaque
def power(base: Tensor, exponent: Tensor) -> Tensor:
    """base ** exponent in the type of the base (ONNX Pow-15)."""
    return torch.pow(base, exponent).to(base.dtype)


@lowers("BitShift", since=11, gradients=())
@opaque
def bit_shift(a: Tensor, b: Tensor, *, direction: str) -> Tensor:
    """a << b or a >> b of unsigned integers (ONNX BitShift-11), in int64: torch shifts few unsigned types."""
    shift = torch.bitwise_left_shift if direction == "LEFT" else torch.bitwise_right_shift
    return shift(a.to(torch.int64), b.to(torch.int64)).to(a.dtype)


@lowers("IsInf", since=10, gradients=())
def is_infinite(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Whether an element is infinite, of the signs asked for (ONNX IsInf-20)."""
    if detect_negative and detect_positive:
        return torch.isinf(x)
    if not (detect_negative or detect_positive):
        return torch.zeros_like(x, dtype=torch.bool)
    return torch.isposinf(x) if detect_positive else torch.isneginf(x)


@lowers("Clip", since=6, static=(1, 2))
def clip(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """x held between two scalars, either of which may be absent (ONNX Clip-6, Clip-13)."""
    return x if min is None and max is None else held(x, scalar(min), scalar(max))


@opaque
def held(x: Tensor, low: Any, high: Any, in_place: bool = False) -> Tensor:
    """x between two scalars, None for no limit. It has no gradient where it is held, nor at the scalars themselves.

    So it is with ReLU and ReLU6. torch.clamp's gradient, 1 at the scalars, takes several times as long.
    """
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        # It takes two tensors or two numbers.
        return torch.clamp(
            x, *(each if each is None else torch.as_tensor(each).to(x) for each in (low, high))
        )
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    if least > most or not x.is_floating_point():
        return torch.clamp(x, low, high)
    return F.hardtanh(x, least, most, inplace=in_place)


@lowers("Min", since=8)
def minimum(*operands: Tensor) -> Tensor:
    """The smallest of all operands (ONNX Min-13)."""
    return functools.reduce(torch.minimum, operands)


@lowers("Max", since=8)
def maximum(*operands: Tensor) -> Tensor:
    """The largest of all operands (ONNX Max-13)."""
    return functools.reduce(torch.maximum, operands)


@lowers("Sum", since=8)
def total(*operands: Tensor) -> Tensor:
    """The sum of all operands (ONNX Sum-13)."""
    return functools.reduce(operator.add, operands)


@lowers("Mean", since=8)
def mean(*operands: Tensor) -> Tensor:
    """The mean of all operands (ONNX Mean-13)."""
    return functools.reduce(operator.add, operands) / len(operands)


@lowers("Identity", since=1, moves=True)
def identity(x: Tensor) -> Tensor:
    """x itself (ONNX Identity-1)."""
    return x


@lowers("Cast", since=6, moves=True)
def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """x in another element type (ONNX Cast-13); types narrower than float32 stay in float32."""
    return x.to(torch_dtype(to))


@lowers("CastLike", since=15)
def cast_like(x: Tensor, target: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """x in the element type of `target` (ONNX CastLike-15)."""
    return x.to(target.dtype)


@lowers("Dropout", since=7, several=True, gradients=(0,))
def dropout(
    x: Tensor, ratio: float = 0.5, training_mode: Tensor | None = None, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """x itself and a mask of ones: dropout in inference form (ONNX Dropout-7, Dropout-13)."""
    return x, torch.ones_like(x, dtype=torch.bool)

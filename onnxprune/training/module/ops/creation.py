"""Operators that make tensors from sizes and numbers, and ask tensors for their sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque
from onnxprune.training.module.ops.types import torch_dtype


@lowers("Shape", since=1, gradients=())
@opaque
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """The sizes of the axes from `start` to `end`, int64 (ONNX Shape-21)."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


@lowers("Size", since=1, gradients=())
@opaque
def size(x: Tensor) -> Tensor:
    """The number of elements, an int64 scalar (ONNX Size-21)."""
    return torch.tensor(x.numel())


@lowers("ConstantOfShape", since=9, static=(0,), gradients=())
def constant_of_shape(shape: Sequence[int], *, value: Tensor | None = None) -> Tensor:
    """A tensor filled with one value, float32 zero if absent (ONNX ConstantOfShape-21)."""
    return torch.zeros(list(shape)) if value is None else value.reshape(()).expand(list(shape))


@lowers("Range", since=11, gradients=())
@opaque
def number_range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start, start + delta, ... below limit, in the type of start (ONNX Range-11)."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


@lowers("EyeLike", since=9, gradients=())
@opaque
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Ones on the k-th diagonal of a matrix of x's shape, 0 elsewhere (ONNX EyeLike-9)."""
    ones = torch.ones(x.shape, dtype=x.dtype if dtype is None else torch_dtype(dtype), device=x.device)
    return torch.triu(torch.tril(ones, k), k)

"""Reductions over axes: sums, norms, extremes and their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque
from onnxprune.training.module.ops.types import scalar


def _over(
    x: Tensor, axes: Sequence[int] | None, keepdims: int, noop: int
) -> tuple[Tensor, tuple[int, ...], bool]:
    """The arguments of torch's reductions: x, axes, keepdim. No axes mean all, or with `noop` a new one of size 1."""
    if axes:
        return x, tuple(axes), bool(keepdims)
    if noop:
        return x.unsqueeze(-1), (-1,), False
    return x, tuple(range(x.dim())), bool(keepdims)


Axes = Sequence[int] | None


@lowers("ReduceSum", since=1)
@lowers("ReduceSum", since=13, static=(1,))
@opaque
def reduce_sum(x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """The sum over axes, all where none are given (ONNX ReduceSum-13)."""
    return torch.sum(*_over(x, axes, keepdims, noop_with_empty_axes), dtype=x.dtype)


@lowers("ReduceMean", since=1)
@lowers("ReduceMean", since=18, static=(1,))
@opaque
def reduce_mean(x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """The mean over axes, all where none are given (ONNX ReduceMean-18)."""
    return torch.mean(*_over(x, axes, keepdims, noop_with_empty_axes))


@lowers("ReduceMax", since=1)
@lowers("ReduceMax", since=18, static=(1,))
@opaque
def reduce_max(x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """The maximum over axes, all where none are given (ONNX ReduceMax-20)."""
    return torch.amax(*_over(x, axes, keepdims, noop_with_empty_axes))


@lowers("ReduceMin", since=1)
@lowers("ReduceMin", since=18, static=(1,))
@opaque
def reduce_min(x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """The minimum over axes, all where none are given (ONNX ReduceMin-20)."""
    return torch.amin(*_over(x, axes, keepdims, noop_with_empty_axes))


@lowers("ReduceProd", since=1)
@lowers("ReduceProd", since=18, static=(1,))
@opaque
def reduce_prod(x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """The product over axes, all where none are given (ONNX ReduceProd-18)."""
    x, dims, keepdim = _over(x, axes, keepdims, noop_with_empty_axes)
    for dim in sorted((dim % x.dim() for dim in dims), reverse=True):
        x = torch.prod(x, dim, keepdim, dtype=x.dtype)
    return x


@lowers("ReduceL1", since=1)
@lowers("ReduceL1", since=18, static=(1,))
@opaque
def reduce_l1(x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """The sum of magnitudes over axes, all where none are given (ONNX ReduceL1-18)."""
    return torch.sum(*_over(x.abs(), axes, keepdims, noop_with_empty_axes), dtype=x.dtype)


@lowers("ReduceL2", since=1)
@lowers("ReduceL2", since=18, static=(1,))
@opaque
def reduce_l2(x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """The root of the sum of squares over axes, all where none are given (ONNX ReduceL2-18)."""
    x, dims, keepdim = _over(x, axes, keepdims, noop_with_empty_axes)
    return torch.linalg.vector_norm(x, 2, dims, keepdim)


@lowers("ReduceSumSquare", since=1)
@lowers("ReduceSumSquare", since=18, static=(1,))
@opaque
def reduce_sum_square(
    x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """The sum of squares over axes, all where none are given (ONNX ReduceSumSquare-18)."""
    return torch.sum(*_over(x.square(), axes, keepdims, noop_with_empty_axes), dtype=x.dtype)


@lowers("ReduceLogSum", since=1)
@lowers("ReduceLogSum", since=18, static=(1,))
@opaque
def reduce_log_sum(
    x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """The logarithm of the sum over axes, all where none are given (ONNX ReduceLogSum-18)."""
    return torch.sum(*_over(x, axes, keepdims, noop_with_empty_axes)).log()


@lowers("ReduceLogSumExp", since=1)
@lowers("ReduceLogSumExp", since=18, static=(1,))
@opaque
def reduce_log_sum_exp(
    x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """log(sum(exp(x))) over axes, all where none are given (ONNX ReduceLogSumExp-18)."""
    return torch.logsumexp(*_over(x, axes, keepdims, noop_with_empty_axes))


@lowers("ArgMax", since=1, gradients=())
@opaque
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """The place of the maximum along one axis, the first or the last of equals (ONNX ArgMax-13)."""
    return _place(torch.argmax, x, axis, keepdims, select_last_index)


@lowers("ArgMin", since=1, gradients=())
@opaque
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """The place of the minimum along one axis, the first or the last of equals (ONNX ArgMin-13)."""
    return _place(torch.argmin, x, axis, keepdims, select_last_index)


def _place(find: Any, x: Tensor, axis: int, keepdims: int, select_last_index: int) -> Tensor:
    if select_last_index:
        return x.shape[axis] - 1 - find(x.flip(axis), axis, bool(keepdims))
    return find(x, axis, bool(keepdims))


@lowers("CumSum", since=11, static=(1,))
@opaque
def cumulative_sum(x: Tensor, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """The sums of all elements up to each one along `axis` (ONNX CumSum-14)."""
    axis = scalar(axis)
    x = x.flip(axis) if reverse else x
    sums = torch.cumsum(x, axis, dtype=x.dtype)
    sums = sums - x if exclusive else sums
    return sums.flip(axis) if reverse else sums


@lowers("CumProd", since=26, static=(1,))
@opaque
def cumulative_product(x: Tensor, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """The products of all elements up to each one along `axis` (ONNX CumProd-26)."""
    axis = scalar(axis)
    x = x.flip(axis) if reverse else x
    if exclusive:  # not products / x, for x may be 0
        first = torch.ones_like(x.narrow(axis, 0, 1))
        x = torch.cat((first, x.narrow(axis, 0, x.shape[axis] - 1)), axis)
    products = torch.cumprod(x, axis, dtype=x.dtype)
    return products.flip(axis) if reverse else products


@lowers("TopK", since=1, several=True, gradients=(0,))
@lowers("TopK", since=10, static=(1,), several=True, gradients=(0,))
def top_k(x: Tensor, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    """The k largest or smallest elements along one axis and their places, of equals the first (ONNX TopK-11)."""
    ordered = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return ordered[0].narrow(axis, 0, scalar(k)), ordered[1].narrow(axis, 0, scalar(k))

"""Operators that pick or place elements by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque
from onnxprune.training.module.ops.types import scalar


@lowers("Slice", since=1)
@lowers("Slice", since=10, static=(1, 2, 3, 4))
def slice_axes(
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Tensor:
    """x[start:end:step] along each of `axes`, the first ones if absent (ONNX Slice-1, Slice-13)."""
    axes = range(len(starts)) if axes is None else axes
    whole: Any = slice(None)
    steps = [1] * len(starts) if steps is None else steps
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:
            x = _slice_backward(x, axis, start, end, step)
        elif axis < 0:
            x = x[(..., slice(start, end, step), *[whole] * (-axis - 1))]
        else:
            x = x[(*[whole] * axis, slice(start, end, step))]
    return x


@opaque
def _slice_backward(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    positions = list(range(x.shape[axis]))[start:end:step]
    return x.index_select(axis, torch.tensor(positions, dtype=torch.int64, device=x.device))


@lowers("Gather", since=1)
@opaque
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """The slices of x at `indices` along one axis, which the axes of `indices` replace (ONNX Gather-13)."""
    before: list[Any] = [slice(None)] * (axis % x.dim())
    return x[(*before, indices.to(torch.int64))]


@lowers("GatherElements", since=11)
@opaque
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """out[i][j] = x[indices[i][j]][j] for axis 0, and so on (ONNX GatherElements-13)."""
    return torch.gather(x, axis, indices.to(torch.int64) % x.shape[axis])


@lowers("GatherND", since=11)
@opaque
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """The slices of x that the last axis of `indices` points at, batch by batch (ONNX GatherND-13)."""
    batch = x.shape[:batch_dims]
    rows = x.reshape(batch.numel(), *x.shape[batch_dims:])
    places = indices.to(torch.int64).reshape(batch.numel(), -1, indices.shape[-1])
    first = torch.arange(len(rows), device=x.device).unsqueeze(1)
    return rows[(first, *places.unbind(-1))].reshape(
        *indices.shape[:-1], *rows.shape[1 + indices.shape[-1] :]
    )


_REDUCTIONS = {"mul": "prod", "add": "sum", "max": "amax", "min": "amin"}


@lowers("Scatter", since=9)
@lowers("ScatterElements", since=11)
@opaque
def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """x with out[indices[i][j]][j] = updates[i][j] for axis 0, and so on (ONNX ScatterElements-18)."""
    indices = indices.to(torch.int64) % x.shape[axis]
    if reduction == "none":
        return x.scatter(axis, indices, updates)
    return x.scatter_reduce(axis, indices, updates, _REDUCTIONS[reduction])


@lowers("ScatterND", since=11)
@opaque
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """x with the slices that the last axis of `indices` points at updated (ONNX ScatterND-18)."""
    depth = indices.shape[-1]
    heads, rest = x.shape[:depth], x.shape[depth:]
    places = indices.to(torch.int64).reshape(-1, depth)
    flat = torch.zeros(len(places), dtype=torch.int64, device=x.device)
    for axis, size in enumerate(heads):
        flat = flat * size + places[:, axis] % size
    rows, new = x.reshape(heads.numel(), rest.numel()), updates.reshape(len(places), rest.numel())
    if reduction == "none":
        return rows.index_put((flat,), new).reshape(x.shape)
    flat = flat.unsqueeze(1).expand_as(new)
    return rows.scatter_reduce(0, flat, new, _REDUCTIONS[reduction]).reshape(x.shape)


@lowers("OneHot", since=9, static=(1,))
@opaque
def one_hot(indices: Tensor, depth: Any, values: Tensor, *, axis: int = -1) -> Tensor:
    """values[1] at each index along a new axis of size `depth`, values[0] elsewhere (ONNX OneHot-11)."""
    size = int(scalar(depth))
    at = indices.to(torch.int64)
    axis = axis % (at.dim() + 1)
    inside = (at >= -size) & (at < size)
    hot = torch.arange(size, device=at.device) == (at % size).unsqueeze(-1)
    hot = (hot & inside.unsqueeze(-1)).movedim(-1, axis)
    return torch.where(hot, values[1], values[0])


@lowers("NonZero", since=9, gradients=())
def non_zero(x: Tensor) -> Tensor:
    """The places of the non-zero elements, (rank, count) int64 (ONNX NonZero-13)."""
    return torch.nonzero(x).t()


@lowers("Trilu", since=14, static=(1,))
def triangle(x: Tensor, k: Any = 0, *, upper: int = 1) -> Tensor:
    """The part of each matrix above (or below) its k-th diagonal, 0 elsewhere (ONNX Trilu-14)."""
    return torch.triu(x, scalar(k)) if upper else torch.tril(x, scalar(k))


@lowers("Compress", since=9)
@opaque
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """The slices along one axis (or the elements of flattened x) where `condition` holds (ONNX Compress-11)."""
    x = x.flatten() if axis is None else x
    return x.index_select(axis or 0, torch.nonzero(condition).flatten())


@lowers("ReverseSequence", since=10)
@opaque
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """Each batch entry with its first `lengths` steps in reverse (ONNX ReverseSequence-10)."""
    moved = x.movedim((batch_axis, time_axis), (0, 1))
    steps = torch.arange(moved.shape[1], device=x.device)
    places = torch.where(steps < lengths.unsqueeze(1), lengths.unsqueeze(1) - 1 - steps, steps)
    rows = torch.arange(len(moved), device=x.device).unsqueeze(1)
    return moved[rows, places].movedim((0, 1), (batch_axis, time_axis))

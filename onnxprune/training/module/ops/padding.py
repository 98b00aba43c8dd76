"""Pad, and the padding of windows that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque
from onnxprune.training.module.ops.types import scalar


def is_symmetric(pads: Sequence[int]) -> bool:
    """Whether ONNX pads (all begins, then all ends) are the same on both sides of every axis."""
    half = len(pads) // 2
    return tuple(pads[:half]) == tuple(pads[half:])


def torch_pads(pads: Sequence[int]) -> list[int]:
    """ONNX pads in the order of F.pad: the last axis first, its begin and its end side by side.

    >>> torch_pads([1, 2, 3, 4])
    [2, 4, 1, 3]
    """
    half = len(pads) // 2
    return [pad for axis in reversed(range(half)) for pad in (pads[axis], pads[axis + half])]


def same_pads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    auto_pad: str,
) -> list[int]:
    """ONNX pads of SAME_UPPER or SAME_LOWER: ceil(size / stride) windows, the odd one at the end or the begin."""
    begins, ends = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        extent = (width - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if auto_pad == "SAME_UPPER" else large)
        ends.append(large if auto_pad == "SAME_UPPER" else small)
    return begins + ends


@lowers("Pad", since=2, static=(1, 2, 3))
@opaque
def pad(
    x: Tensor,
    pads: Sequence[int],
    value: Any = None,
    axes: Sequence[int] | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """x with `pads` more (or, negative, fewer) elements at each end of `axes` (ONNX Pad-2, Pad-21)."""
    axes = range(x.dim()) if axes is None else axes
    if mode == "constant":
        full = [0] * (2 * x.dim())
        for index, axis in enumerate(axes):
            full[axis % x.dim()] = pads[index]
            full[axis % x.dim() + x.dim()] = pads[index + len(axes)]
        return F.pad(x, torch_pads(full), value=scalar(value) or 0)
    for index, axis in enumerate(axes):
        begin, end = pads[index], pads[index + len(axes)]
        if begin or end:
            x = x.index_select(axis, _sources(x.shape[axis], begin, end, mode).to(x.device))
    return x


def _sources(size: int, begin: int, end: int, mode: str) -> Tensor:
    """For each position along a padded axis, the position it is copied from."""
    positions = torch.arange(-begin, size + end)
    if mode == "edge":
        return positions.clamp(0, size - 1)
    if mode == "wrap":
        return positions % size
    period = max(2 * (size - 1), 1)
    return (size - 1) - ((positions % period) - (size - 1)).abs()

"""Pools over windows of the spatial axes, and over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.padding import is_symmetric, same_pads, torch_pads
from onnxprune.training.module.ops.table import lowers, opaque

_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@lowers("MaxPool", since=1, several=True, gradients=(0,))
def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """The maximum of each window and, of two outputs, its index in the flattened x (ONNX MaxPool-22)."""
    rank = len(kernel_shape)
    dilations, pads, strides = dilations or (1,) * rank, pads or (0,) * 2 * rank, strides or (1,) * rank
    if auto_pad == "VALID":
        auto_pad, pads = "NOTSET", (0,) * 2 * rank
    within_half = all(2 * pad <= width for pad, width in zip(pads, kernel_shape, strict=False))
    if outputs == 1 and auto_pad == "NOTSET" and is_symmetric(pads) and within_half:
        pool = _MAX_POOLS[rank]
        return (
            pool(x, list(kernel_shape), list(strides), list(pads[:rank]), list(dilations), bool(ceil_mode)),
        )
    result = _max_pool_of_padded(
        x,
        tuple(kernel_shape),
        tuple(strides),
        tuple(dilations),
        tuple(pads),
        auto_pad,
        ceil_mode,
        storage_order,
    )
    return result[0], result[1]


@opaque
def _max_pool_of_padded(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str,
    ceil_mode: int,
    storage_order: int,
) -> tuple[Tensor, Tensor]:
    pads, _ = _window_pads(x.shape[2:], kernel, strides, dilations, pads, auto_pad, ceil_mode)
    padded = F.pad(
        x, torch_pads(pads), value=-math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    )
    pool = _MAX_POOLS[len(kernel)]
    largest, places = pool(padded, list(kernel), list(strides), 0, list(dilations), return_indices=True)
    padded_axes = torch.unravel_index(places, padded.shape[2:])
    axes = [place - begin for place, begin in zip(padded_axes, pads, strict=False)]
    sizes = x.shape[2:]
    if storage_order:
        axes, sizes = axes[::-1], sizes[::-1]
    flat = torch.zeros_like(places)
    for place, size in zip(axes, sizes, strict=True):
        flat = flat * size + place
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device) * sizes.numel()
    return largest, flat + planes.reshape(x.shape[0], x.shape[1], *(1,) * len(kernel))


@lowers("MaxUnpool", since=9, static=(2,))
@opaque
def max_unpool(
    x: Tensor,
    places: Tensor,
    output_shape: Sequence[int] | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Elements back at their places in the flattened input of a MaxPool, 0 elsewhere (ONNX MaxUnpool-22).

    With `output_shape`, places are those in the flattened output, as in onnxruntime.
    """
    rank = len(kernel_shape)
    strides, pads = strides or (1,) * rank, pads or (0,) * 2 * rank
    sizes = [
        (size - 1) * stride + kernel - begin - end
        for size, stride, kernel, begin, end in zip(
            x.shape[2:], strides, kernel_shape, pads[:rank], pads[rank:], strict=True
        )
    ]
    shape = list(output_shape or (*x.shape[:2], *sizes))
    flat = torch.zeros(math.prod(shape), dtype=x.dtype, device=x.device)
    return flat.scatter(0, places.flatten(), x.flatten()).reshape(shape)


@lowers("AveragePool", since=7)
def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """The mean of each window, padding counted or not (ONNX AveragePool-22)."""
    rank = len(kernel_shape)
    dilations, pads, strides = dilations or (1,) * rank, pads or (0,) * 2 * rank, strides or (1,) * rank
    if auto_pad == "VALID":
        auto_pad, pads = "NOTSET", (0,) * 2 * rank
    within_half = all(2 * pad <= width for pad, width in zip(pads, kernel_shape, strict=False))
    dense = all(dilation == 1 for dilation in dilations)
    if rank <= 3 and auto_pad == "NOTSET" and is_symmetric(pads) and within_half and dense:
        pool = _AVERAGE_POOLS[rank]
        return pool(
            x, list(kernel_shape), list(strides), list(pads[:rank]), bool(ceil_mode), bool(count_include_pad)
        )
    window = (tuple(kernel_shape), tuple(strides), tuple(dilations), tuple(pads), auto_pad, ceil_mode)
    return _average_pool_of_padded(x, window, count_include_pad)


@opaque
def _average_pool_of_padded(x: Tensor, window: tuple, count_include_pad: int) -> Tensor:
    kernel, strides, dilations, *_ = window
    pads, overhang = _window_pads(x.shape[2:], *window)
    counted = torch.ones_like(x[:1, :1])
    if count_include_pad:
        rank = len(kernel)
        inner = [*pads[:rank], *(end - over for end, over in zip(pads[rank:], overhang, strict=True))]
        counted = F.pad(counted, torch_pads(inner), value=1)
        counted = F.pad(counted, torch_pads([0] * rank + overhang))
    else:
        counted = F.pad(counted, torch_pads(pads))
    sums = _window_sums(F.pad(x, torch_pads(pads)), kernel, strides, dilations)
    return sums / _window_sums(counted, kernel, strides, dilations)


@lowers("LpPool", since=2)
@opaque
def lp_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """The p-norm of each window (ONNX LpPool-22)."""
    rank = len(kernel_shape)
    dilations, pads, strides = dilations or (1,) * rank, pads or (0,) * 2 * rank, strides or (1,) * rank
    pads, _ = _window_pads(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    powers = F.pad(x, torch_pads(pads)).abs().pow(p)
    return _window_sums(powers, kernel_shape, strides, dilations).pow(1 / p)


def _window_sums(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Tensor:
    for axis, (width, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), start=2):
        x = x.unfold(axis, (width - 1) * dilation + 1, stride)[..., ::dilation].sum(-1)
    return x


def _window_pads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    auto_pad: str,
    ceil_mode: int,
) -> tuple[list[int], list[int]]:
    """Explicit ONNX pads, and how far the last windows of `ceil_mode` extend beyond the padded input."""
    rank = len(kernel)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return same_pads(sizes, kernel, strides, dilations, auto_pad), [0] * rank
    begins = [0] * rank if auto_pad == "VALID" else list(pads[:rank])
    ends = [0] * rank if auto_pad == "VALID" else list(pads[rank:])
    overhang = [0] * rank
    for axis in range(rank) if ceil_mode else ():
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        room = sizes[axis] + begins[axis] + ends[axis] - extent
        windows = -(-room // strides[axis]) + 1
        # A window that would start in the padding at the end is left out.
        if (windows - 1) * strides[axis] >= sizes[axis] + begins[axis]:
            windows -= 1
        overhang[axis] = max((windows - 1) * strides[axis] - room, 0)
        ends[axis] += overhang[axis]
    return begins + ends, overhang


@lowers("GlobalAveragePool", since=1)
@opaque
def global_average_pool(x: Tensor) -> Tensor:
    """The mean over the spatial axes (ONNX GlobalAveragePool-22); (N, C, ...) to (N, C, 1, ...)."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@lowers("GlobalMaxPool", since=1)
@opaque
def global_max_pool(x: Tensor) -> Tensor:
    """The maximum over the spatial axes (ONNX GlobalMaxPool-22); (N, C, ...) to (N, C, 1, ...)."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@lowers("GlobalLpPool", since=2)
@opaque
def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    """The p-norm over the spatial axes (ONNX GlobalLpPool-22); (N, C, ...) to (N, C, 1, ...)."""
    return torch.linalg.vector_norm(x, p, tuple(range(2, x.dim())), keepdim=True)

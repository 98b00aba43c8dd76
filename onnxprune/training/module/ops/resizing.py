"""Resize: every output position is a weighted sum of input positions, axis by axis."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque

# How far from a position its interpolation reaches, in input steps.
_REACH = {"linear": 1, "cubic": 2}


@lowers("Upsample", since=7)
@lowers("Upsample", since=9, static=(1,))
@opaque
def upsample(x: Tensor, scales: Sequence[float], *, mode: str = "nearest") -> Tensor:
    """Resize with asymmetric coordinates, rounded down (ONNX Upsample-9)."""
    return resize(
        x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


@lowers("Resize", since=10)
@opaque
def resize_by_scales(x: Tensor, scales: Tensor, *, mode: str = "nearest") -> Tensor:
    """Upsample, or downsample (ONNX Resize-10)."""
    return upsample(x, scales.tolist(), mode=mode)


@lowers("Resize", since=11, static=(1, 2, 3))
@opaque
def resize(
    x: Tensor,
    roi: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """x at other sizes of `axes`, nearest, linear or cubic (ONNX Resize-11, Resize-19)."""
    axes = [axis % x.dim() for axis in (range(x.dim()) if axes is None else axes)]
    before = [x.shape[axis] for axis in axes]
    if sizes:
        if keep_aspect_ratio_policy != "stretch":
            choose = min if keep_aspect_ratio_policy == "not_larger" else max
            scale = choose(size / old for size, old in zip(sizes, before, strict=True))
            sizes = [math.floor(scale * old + 0.5) for old in before]
            scales = [scale] * len(axes)
        else:
            scales = [size / old for size, old in zip(sizes, before, strict=True)]
    else:
        assert scales
        sizes = [math.floor(scale * old) for scale, old in zip(scales, before, strict=True)]
    for index, axis in enumerate(axes):
        if scales[index] == 1 and coordinate_transformation_mode != "tf_crop_and_resize":
            continue
        bounds = (roi[index], roi[index + len(axes)]) if roi else (0.0, 1.0)
        coordinates = (before[index], sizes[index], scales[index], coordinate_transformation_mode, bounds)
        if mode == "nearest":
            places, weights = _nearest(*coordinates, nearest_mode)
        else:
            kernel = (mode, cubic_coeff_a, bool(antialias), bool(exclude_outside))
            places, weights = _interpolation(*coordinates, kernel)
        x = _weighted(x, axis, places, weights)
        if coordinate_transformation_mode == "tf_crop_and_resize":
            outside = torch.from_numpy(_outside(*coordinates)).to(x.device)
            x = x.index_fill(axis, torch.nonzero(outside).flatten(), extrapolation_value)
    return x


@lowers("GridSample", since=16)
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    """x at the places that `grid` names, in [-1, 1] (ONNX GridSample-20); x: (N, C, ...), grid: (N, ..., axes)."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return F.grid_sample(x, grid, mode, padding_mode, bool(align_corners))


def _weighted(x: Tensor, axis: int, places: Tensor, weights: Tensor | None) -> Tensor:
    """The sum over taps of weights[:, tap] * x at places[:, tap] along one axis; no weights are one of 1."""
    places = places.to(x.device)
    if weights is None:
        return x.index_select(axis, places[:, 0])
    shape = [-1 if other == axis else 1 for other in range(x.dim())]
    taps = weights.to(x.device, x.dtype).t().reshape(len(weights[0]), *shape)
    parts = (x.index_select(axis, places[:, tap]) * taps[tap] for tap in range(len(taps)))
    return functools.reduce(operator.add, parts)


def _positions(
    before: int, after: int, scale: float, mode: str, bounds: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """For each output place the input place left of it, and how far on it lies, in (0, 1]."""
    x = _coordinates(before, after, scale, mode, bounds)
    left = np.ceil(x) - 1
    return left.astype(np.int64), x - left


def _coordinates(before: int, after: int, scale: float, mode: str, bounds: tuple[float, float]) -> np.ndarray:
    x = np.arange(after, dtype=np.float64)
    length = scale * before
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * (before - 1) / (length - 1) if length != 1 else np.zeros(after)
    if mode == "tf_crop_and_resize":
        begin, end = bounds
        if after == 1:
            return np.full(1, (begin + end) * (before - 1) / 2)
        return begin * (before - 1) + x * (end - begin) * (before - 1) / (length - 1)
    if mode == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    if mode == "pytorch_half_pixel" and length == 1:
        return np.full(after, -0.5)
    if mode == "half_pixel_symmetric":
        return before / 2 * (1 - after / length) + (x + 0.5) / scale - 0.5
    return (x + 0.5) / scale - 0.5


def _outside(before: int, after: int, scale: float, mode: str, bounds: tuple[float, float]) -> np.ndarray:
    x = _coordinates(before, after, scale, mode, bounds)
    return (x < 0) | (x > before - 1)


@functools.lru_cache(maxsize=256)
def _nearest(
    before: int, after: int, scale: float, mode: str, bounds: tuple[float, float], nearest_mode: str
) -> tuple[Tensor, None]:
    left, part = _positions(before, after, scale, mode, bounds)
    right = {
        "round_prefer_floor": part > 0.5,
        "round_prefer_ceil": part >= 0.5,
        "floor": part == 1,
        "ceil": part > 0,
    }[nearest_mode]
    return torch.from_numpy(np.clip(left + right, 0, before - 1)).unsqueeze(1), None


@functools.lru_cache(maxsize=256)
def _interpolation(
    before: int,
    after: int,
    scale: float,
    mode: str,
    bounds: tuple[float, float],
    kernel: tuple[str, float, bool, bool],
) -> tuple[Tensor, Tensor]:
    """Places and weights, (after, taps); antialiasing stretches the kernel where the axis shrinks."""
    name, cubic_coeff_a, antialias, exclude_outside = kernel
    left, part = _positions(before, after, scale, mode, bounds)
    stretch = min(scale, 1.0) if antialias else 1.0
    first = math.floor(-_REACH[name] / stretch) + 1
    offsets = np.arange(first, 2 - first)
    distances = np.abs(offsets - part[:, None]) * stretch
    weights = np.clip(1 - distances, 0, 1) if name == "linear" else _cubic(distances, cubic_coeff_a)
    places = left[:, None] + offsets
    if exclude_outside:
        weights = np.where((places < 0) | (places >= before), 0, weights)
    if exclude_outside or antialias:
        weights = weights / weights.sum(1, keepdims=True)
    return torch.from_numpy(np.clip(places, 0, before - 1)), torch.from_numpy(weights)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))

"""Normalizations; batch normalization runs in inference form, as the model will."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque


@lowers("BatchNormalization", since=7, trains=(1, 2), several=True)
def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
) -> tuple[Tensor, ...]:
    """scale * (x - mean) / sqrt(variance + epsilon) + bias (ONNX BatchNormalization-15), per channel (axis 1).

    The given statistics are used, and are the further outputs, even where `training_mode` asks for those
    of the batch.
    """
    y = F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
    return y, mean, variance, mean, variance


@lowers("InstanceNormalization", since=6, trains=(1, 2))
def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Each channel of each sample to mean 0, variance 1, then scale and bias (ONNX InstanceNormalization-22)."""
    return torch.group_norm(x, x.shape[1], scale, bias, epsilon)


@lowers("LayerNormalization", since=17, trains=(1, 2), several=True)
@opaque
def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """The axes from `axis` on to mean 0, variance 1, then scale and bias (ONNX LayerNormalization-17).

    Of several outputs the second is the mean, the third the inverse deviation.
    """
    sizes = x.shape[axis:]
    fits = scale.shape == sizes and (bias is None or bias.shape == sizes)
    y = F.layer_norm(x, sizes, scale if fits else None, bias if fits else None, epsilon)
    if not fits:
        y = y * scale if bias is None else y * scale + bias
    if outputs == 1:
        return (y,)
    axes = tuple(range(axis % x.dim(), x.dim()))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return y, mean, torch.rsqrt(variance + epsilon)


@lowers("LRN", since=1)
@opaque
def local_response_normalization(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """x / (bias + alpha / size * sum of squares over `size` channels) ** beta (ONNX LRN-13)."""
    squares = x.square().movedim(1, -1)
    before = (size - 1) // 2
    sums = F.pad(squares, (before, size - 1 - before)).unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (bias + alpha / size * sums).pow(beta)


@lowers("LpNormalization", since=1)
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """x / its p-norm along one axis, 0 where the norm is 0 (ONNX LpNormalization-22)."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


@lowers("MeanVarianceNormalization", since=9)
def mean_variance_normalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    """(x - mean) / (deviation + 1e-9) over `axes` (ONNX MeanVarianceNormalization-13)."""
    centered = x - x.mean(tuple(axes), keepdim=True)
    return centered / (centered.square().mean(tuple(axes), keepdim=True).sqrt() + 1e-9)


@lowers("GroupNormalization", since=18, trains=(1, 2))
def group_normalization_by_group(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5
) -> Tensor:
    """Groups of channels to mean 0, variance 1; one scale and bias a group (ONNX GroupNormalization-18)."""
    width = x.shape[1] // num_groups
    scale, bias = scale.repeat_interleave(width), bias.repeat_interleave(width)
    return torch.group_norm(x, num_groups, scale, bias, epsilon)


@lowers("GroupNormalization", since=21, trains=(1, 2))
def group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Groups of channels to mean 0, variance 1; one scale and bias a channel (ONNX GroupNormalization-21)."""
    return torch.group_norm(x, num_groups, scale, bias, epsilon)


@lowers("RMSNormalization", since=23, trains=(1,))
def rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """scale * x / sqrt(mean(x²) + epsilon) over the axes from `axis` on (ONNX RMSNormalization-23)."""
    return F.rms_norm(x, x.shape[axis:], None, epsilon) * scale

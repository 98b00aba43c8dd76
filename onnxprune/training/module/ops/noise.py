"""Random numbers. They are the same in every run for a shape, so that teacher and student see the same noise."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque
from onnxprune.training.module.ops.types import torch_dtype


@lowers("RandomNormal", since=1)
def random_normal(
    *,
    shape: Sequence[int],
    dtype: int = 1,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float = 0.0,
    name: str,
) -> Tensor:
    """Normal numbers of a shape (ONNX RandomNormal-22)."""
    numbers = torch.randn(list(shape), generator=_generator(name, seed)) * scale + mean
    return numbers.to(torch_dtype(dtype))


@lowers("RandomUniform", since=1)
def random_uniform(
    *, shape: Sequence[int], dtype: int = 1, low: float = 0.0, high: float = 1.0, seed: float = 0.0, name: str
) -> Tensor:
    """Uniform numbers of a shape in [low, high) (ONNX RandomUniform-22)."""
    numbers = torch.rand(list(shape), generator=_generator(name, seed)) * (high - low) + low
    return numbers.to(torch_dtype(dtype))


@lowers("RandomNormalLike", since=1, gradients=())
@opaque
def random_normal_like(
    x: Tensor,
    *,
    dtype: int | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float = 0.0,
    name: str,
) -> Tensor:
    """Normal numbers of x's shape, and type if none is given (ONNX RandomNormalLike-22)."""
    numbers = random_normal(shape=x.shape, mean=mean, scale=scale, seed=seed, name=name)
    return numbers.to(x.device, x.dtype if dtype is None else torch_dtype(dtype))


@lowers("RandomUniformLike", since=1, gradients=())
@opaque
def random_uniform_like(
    x: Tensor, *, dtype: int | None = None, low: float = 0.0, high: float = 1.0, seed: float = 0.0, name: str
) -> Tensor:
    """Uniform numbers of x's shape, and type if none is given (ONNX RandomUniformLike-22)."""
    numbers = random_uniform(shape=x.shape, low=low, high=high, seed=seed, name=name)
    return numbers.to(x.device, x.dtype if dtype is None else torch_dtype(dtype))


def _generator(name: str, seed: float) -> torch.Generator:
    """A generator for a node; each has its own numbers."""
    return torch.Generator().manual_seed(zlib.crc32(f"{name} {seed}".encode()))

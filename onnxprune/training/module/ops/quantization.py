"""Differentiable quantization, with the straight-through estimator for the gradient of rounding.

Quantized values are integers in float32, because torch has no gradients for integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.training.module.ops.table import lowers, opaque

_BITS = {
    ir.DataType.INT4: 4,
    ir.DataType.INT8: 8,
    ir.DataType.INT16: 16,
    ir.DataType.UINT4: 4,
    ir.DataType.UINT8: 8,
    ir.DataType.UINT16: 16,
}


@lowers("QuantizeLinear", since=10)
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    types: Sequence[ir.DataType | None],
) -> Tensor:
    """round(x / scale) + zero_point, held in the range of its type (ONNX QuantizeLinear-21), in float32."""
    kind = ir.DataType(output_dtype or ir.DataType.UINT8) if zero_point is None else types[2]
    if kind not in _BITS:
        raise NotImplementedError(
            f"numbers quantized to {kind.name if kind else 'an unknown type'} have no gradient"
        )
    bits = _BITS[kind]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind.name.startswith("INT") else (0, 2**bits - 1)
    return _quantized(x, scale, zero_point, axis, block_size, low, high)


@opaque
def _quantized(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int, block_size: int, low: int, high: int
) -> Tensor:
    steps = x / _along(scale, x, axis, block_size)
    steps = steps + (torch.round(steps) - steps).detach()
    if zero_point is not None:
        steps = steps + _along(zero_point, x, axis, block_size)
    return steps.clamp(low, high).to(torch.float32)


@opaque
def to_steps(numbers: Tensor, scale: Tensor, zero_point: Tensor, *, low: int, high: int) -> Tensor:
    """The integers, in float32, that a trained weight is rounded to, as by QuantizeLinear."""
    steps = numbers / scale
    steps = steps + (torch.round(steps) - steps).detach() + zero_point
    return steps.clamp(low, high)


@lowers("DequantizeLinear", since=10)
@opaque
def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """(x - zero_point) * scale (ONNX DequantizeLinear-21)."""
    steps = x.to(scale.dtype)
    if zero_point is not None:
        steps = steps - _along(zero_point, x, axis, block_size).to(scale.dtype)
    return steps * _along(scale, x, axis, block_size)


def _along(values: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """Scales or zero points, broadcast to x: one, one a slice of `axis`, or one a block along it."""
    if block_size:
        return values.repeat_interleave(block_size, axis).narrow(axis, 0, x.shape[axis])
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if other == axis % x.dim() else 1 for other in range(x.dim())])

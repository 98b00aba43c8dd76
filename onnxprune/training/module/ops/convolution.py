"""Convolutions over one to three (or more) spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.padding import is_symmetric, same_pads, torch_pads
from onnxprune.training.module.ops.table import lowers, opaque

# By the number of spatial axes. Autocast casts what these take, and not what torch.convolution does.
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@opaque
def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: list[int],
    pads: list[int],
    dilations: list[int],
    group: int,
) -> Tensor:
    """torch's convolution of any number of spatial axes."""
    function = CONVOLUTIONS.get(x.dim() - 2)
    if function is None:
        return torch.convolution(x, weight, bias, strides, pads, dilations, False, [0], group)
    if _is_slow_in_bfloat16(x, weight, (*strides, *dilations), group):
        with torch.autocast("cpu", enabled=False):
            y = function(x.float(), weight, bias, strides, pads, dilations, group)
        return y.to(torch.get_autocast_dtype("cpu"))
    return function(x, weight, bias, strides, pads, dilations, group)


def _is_slow_in_bfloat16(x: Tensor, weight: Tensor, steps: Sequence[int], group: int) -> bool:
    """Whether the gradients of a convolution are faster in float32; `steps`: strides and dilations.

    Of depthwise ones oneDNN has kernels in bfloat16 for size 3 and stride 1; others it computes as full blocks of 16
    channels. Backward, 192 channels of 28x28 at stride 2 take 37 ms in place of 3.
    """
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return False
    has_kernel = weight.dim() <= 4 and set(weight.shape[2:]) == {3} and set(steps) == {1}
    return weight.shape[1] == 1 < group and not (has_kernel and weight.shape[0] == group)


@lowers("Conv", since=1, trains=(1, 2))
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (1,),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (0, 0),
    strides: Sequence[int] = (1,),
) -> Tensor:
    """Cross-correlation (ONNX Conv-22); x: (N, C, ...), weight: (M, C / group, ...), bias: (M,)."""
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        x = _pad_same(x, weight, strides, dilations, auto_pad)
    if auto_pad != "NOTSET":
        pads = (0, 0)
    if not is_symmetric(pads):
        x = F.pad(x, torch_pads(pads))
        pads = (0, 0)
    return convolve(x, weight, bias, list(strides), list(pads[: len(pads) // 2]), list(dilations), group)


@lowers("ConvTranspose", since=1, trains=(1, 2))
@opaque
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """The gradient of Conv by its input (ONNX ConvTranspose-22); weight: (C, M / group, ...), bias: (M,)."""
    rank = x.dim() - 2
    dilations, strides = dilations or (1,) * rank, strides or (1,) * rank
    more, pads = list(output_padding or (0,) * rank), list(pads or (0,) * 2 * rank)
    if auto_pad.startswith("SAME") and output_shape is None:
        output_shape = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if output_shape is None and auto_pad == "NOTSET" and is_symmetric(pads):
        return _transposed(x, weight, bias, strides, pads[:rank], more, group, dilations)
    y = _transposed(x, weight, bias, strides, [0] * rank, more, group, dilations)
    if output_shape is not None:
        pads = _pads_to_shape(y.shape[2:], output_shape[-rank:], auto_pad)
    elif auto_pad == "VALID":
        pads = [0] * 2 * rank
    return F.pad(y, torch_pads([-pad for pad in pads]))


def _transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[int],
    pads: Sequence[int],
    more: Sequence[int],
    group: int,
    dilations: Sequence[int],
) -> Tensor:
    function = TRANSPOSED.get(x.dim() - 2)
    if function is None:
        return torch.convolution(x, weight, bias, strides, pads, dilations, True, more, group)
    return function(x, weight, bias, strides, pads, more, group, dilations)


def _pads_to_shape(full: Sequence[int], wanted: Sequence[int], auto_pad: str) -> list[int]:
    """What to crop from (or, negative, add to) both ends; the odd one at the end for SAME_UPPER, else at the start."""
    totals = [size - target for size, target in zip(full, wanted, strict=True)]
    halves = [total // 2 for total in totals]
    rests = [total - half for total, half in zip(totals, halves, strict=True)]
    return halves + rests if auto_pad == "SAME_UPPER" else rests + halves


@opaque
def _pad_same(
    x: Tensor, weight: Tensor, strides: Sequence[int], dilations: Sequence[int], auto_pad: str
) -> Tensor:
    rank = x.dim() - 2
    steps, gaps = list(strides) * (rank // len(strides)), list(dilations) * (rank // len(dilations))
    return F.pad(x, torch_pads(same_pads(x.shape[2:], weight.shape[2:], steps, gaps, auto_pad)))

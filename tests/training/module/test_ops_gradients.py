"""Gradients of operators against finite differences, in double precision."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from onnxprune.training.module.ops.activations import prelu, softmax_of_matrix
from onnxprune.training.module.ops.convolution import conv, conv_transpose
from onnxprune.training.module.ops.elementwise import clip
from onnxprune.training.module.ops.indexing import gather, scatter_nd, slice_axes
from onnxprune.training.module.ops.linear import gemm
from onnxprune.training.module.ops.normalization import layer_normalization, local_response_normalization
from onnxprune.training.module.ops.padding import pad
from onnxprune.training.module.ops.pooling import average_pool, lp_pool, max_pool, max_unpool
from onnxprune.training.module.ops.quantization import dequantize_linear, quantize_linear
from onnxprune.training.module.ops.recurrent import gru, lstm
from onnxprune.training.module.ops.resizing import resize


def doubles(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


CASES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "gemm": (
        lambda a, b, c: gemm(a, b, c, alpha=0.5, beta=2.0, transA=1),
        (doubles(3, 2), doubles(3, 4), doubles(4)),
    ),
    "conv": (
        lambda x, w, b: conv(x, w, b, pads=(0, 1, 1, 0), strides=(2, 1)),
        (doubles(1, 2, 5, 4), doubles(3, 2, 3, 2), doubles(3)),
    ),
    "transposed conv": (
        lambda x, w: conv_transpose(x, w, pads=(0, 1, 1, 0), strides=(2, 1)),
        (doubles(1, 2, 3, 3), doubles(2, 2, 3, 2)),
    ),
    "max pool": (
        lambda x: max_pool(x, kernel_shape=(3, 2), auto_pad="SAME_UPPER", strides=(2, 2))[0],
        (doubles(1, 2, 5, 5),),
    ),
    "average pool": (
        lambda x: average_pool(x, kernel_shape=(3, 3), pads=(0, 1, 2, 1), ceil_mode=1, strides=(2, 2)),
        (doubles(1, 1, 5, 5),),
    ),
    "lp pool": (lambda x: lp_pool(x, kernel_shape=(2, 2), p=3), (doubles(1, 1, 4, 4),)),
    "max unpool": (
        lambda x: max_unpool(x, torch.tensor([[[[0, 3], [9, 14]]]]), kernel_shape=(2, 2), strides=(2, 2)),
        (doubles(1, 1, 2, 2),),
    ),
    "prelu": (prelu, (doubles(2, 3, 2), doubles(3, 1))),
    "clip": (lambda x: clip(x, -0.4, 0.6), (doubles(4, 5),)),
    "clip below": (lambda x: clip(x, min=0.1), (doubles(4, 5),)),
    "clip to one value": (lambda x: clip(x, 1.0, -1.0), (doubles(4, 5),)),
    "clip by a computed limit": (
        lambda x, low: clip(x, low.mean(), 0.6),
        (doubles(4, 5), doubles(3, seed=1)),
    ),
    "softmax of opset 11": (lambda x: softmax_of_matrix(x, axis=1), (doubles(2, 3, 2),)),
    "layer norm": (lambda x, s, b: layer_normalization(x, s, b)[0], (doubles(3, 4), doubles(4), doubles(4))),
    "local response norm": (lambda x: local_response_normalization(x, size=3), (doubles(1, 5, 2),)),
    "pad by reflection": (lambda x: pad(x, [1, 0, 2, 1], mode="reflect"), (doubles(4, 3),)),
    "slice backwards": (lambda x: slice_axes(x, [3], [0], [0], [-1]), (doubles(4, 2),)),
    "gather": (lambda x: gather(x, torch.tensor([[0, -1], [1, 1]]), axis=1), (doubles(2, 3),)),
    "scatter": (
        lambda x, u: scatter_nd(x, torch.tensor([[0], [2]]), u, reduction="add"),
        (doubles(3, 2), doubles(2, 2)),
    ),
    "resize": (lambda x: resize(x, None, [1, 1, 1.5, 0.7], mode="cubic"), (doubles(1, 1, 4, 5),)),
    "lstm": (
        lambda x, w, r, b: lstm(x, w, r, b)[0],
        (doubles(3, 2, 2), doubles(1, 12, 2), doubles(1, 12, 3), doubles(1, 24)),
    ),
    "gru": (
        lambda x, w, r, b: gru(x, w, r, b)[1],
        (doubles(3, 2, 2), doubles(1, 9, 2), doubles(1, 9, 3), doubles(1, 18)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_equals_finite_differences(name: str) -> None:
    function, operands = CASES[name]
    assert torch.autograd.gradcheck(function, operands)


def test_the_gradient_passes_quantization_where_it_does_not_saturate() -> None:
    x = torch.tensor([-300.0, -1.2, 0.3, 300.0], requires_grad=True)
    scale, zero_point = torch.tensor(0.5), torch.tensor(10, dtype=torch.int8)
    from_int8 = quantize_linear(x, scale, zero_point, types=(None, None, ir.DataType.INT8))
    dequantize_linear(from_int8, scale, zero_point).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]

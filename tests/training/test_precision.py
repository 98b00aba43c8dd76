"""The precision of a training: what autocast computes in bfloat16."""

import pytest
import torch
from onnx import helper

import onnxprune
from tests.builders import floats, model_of, normal


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_convolutions_of_any_rank_are_computed_in_bfloat16_where_autocast_is_on(operator, rank):
    node = helper.make_node(operator, ["x", "w", "b"], ["y"], strides=[2] * rank)
    weights = {"w": normal(4, 4, *[3] * rank), "b": normal(4, seed=1)}
    dims = [f"d{axis}" for axis in range(rank)]
    model = model_of([node], [floats("x", "N", 4, *dims)], [floats("y", "N", 4, *dims)], weights)
    x = torch.from_numpy(normal(2, 4, *[7] * rank, seed=2))
    module = onnxprune.to_torch(model)
    (exact,) = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        (rounded,) = module(x)
    assert exact.dtype == torch.float32 and rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "multiple"),
    [(3, 2, 1, 1), (5, 1, 1, 1), (3, 1, 2, 1), (3, 1, 1, 2), (3, 1, 1, 1)],
)
def test_gradients_of_depthwise_convolutions_are_those_of_float32_up_to_rounding(
    kernel: int, stride: int, dilation: int, multiple: int
) -> None:
    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], group=4, strides=[stride] * 2, dilations=[dilation] * 2
    )
    weights = {"w": normal(4 * multiple, 1, kernel, kernel), "b": normal(4 * multiple, seed=1)}
    model = model_of([node], [floats("x", "N", 4, 9, 9)], [floats("y", "N", 4 * multiple, "h", "w")], weights)
    module, found = onnxprune.to_torch(model), []
    for bfloat16 in (False, True):
        x = torch.from_numpy(normal(2, 4, 9, 9, seed=2)).requires_grad_()
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            (y,) = module(x)
        assert y.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
        y.float().square().sum().backward()
        assert x.grad is not None
        found.append([x.grad, *(parameter.grad.clone() for parameter in module.parameters())])
    for exact, rounded in zip(*found, strict=True):
        assert exact.abs().max() > 0
        assert (rounded - exact).abs().max() < 0.03 * exact.abs().max()

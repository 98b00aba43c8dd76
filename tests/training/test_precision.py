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

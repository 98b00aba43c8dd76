"""Learned scales of simulated integers: their pace, their limits, and the gradient that they get."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from onnxprune.training.module.ops.quantization import dequantize_linear, quantize_linear
from onnxprune.training.simulation import LEAST, PACE, Scales


def test_scales_move_by_parts_of_themselves_and_stay_positive():
    values = [0.5, 0.002]
    scales = [nn.Parameter(torch.tensor(value)) for value in values]
    learned = Scales(scales)
    assert [group["share"] for group in learned.groups()] == pytest.approx([PACE * value for value in values])
    with torch.no_grad():
        for scale in scales:
            scale.fill_(-1)
    learned.hold()
    assert [scale.item() for scale in scales] == pytest.approx([LEAST * value for value in values])


def test_the_gradient_of_a_scale_is_that_of_learned_step_sizes():
    x, scale = torch.tensor([-3.0, 0.34, 0.5, 1.27, 40.0]), torch.tensor(0.1, requires_grad=True)
    zero = torch.tensor(10.0)
    types = (None, None, ir.DataType.UINT8)
    rounded = dequantize_linear(quantize_linear(x, scale, zero, types=types), scale, zero)
    for index, each in enumerate(rounded):
        (gradient,) = torch.autograd.grad(each, scale, retain_graph=True)
        steps = float(x[index]) / 0.1
        inside = -10 <= np.round(steps) <= 245
        expected = np.round(steps) - steps if inside else (-10 if steps < 0 else 245)
        assert float(gradient) == pytest.approx(expected, abs=1e-4)

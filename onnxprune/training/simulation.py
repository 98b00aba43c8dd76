"""Training in which rounding to integers is simulated: what is learned besides the weights, and what is followed.

The graph itself has pairs of QuantizeLinear and DequantizeLinear, whose gradient passes straight through the rounding.
The gradient of a scale is then that of learned step sizes (LSQ, Esser et al. 2020, arXiv 1902.08153). LSQ divides it by
the root of the number of elements, so that scales move as slowly as weights; Adam, which takes no notice of the size of
a gradient, has a learning rate for each scale instead, which is a part of that scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import nn

# The learning rate of a scale, as a part of the scale and of the learning rate of the weights.
PACE = 10.0
# A scale stays above this part of what it was.
LEAST = 0.1


@dataclass(frozen=True)
class Simulation:
    """`floats`: the model without rounding, whose outputs are followed; `scales`: names of the scales to learn."""

    floats: ir.Model
    scales: tuple[str, ...]


class Scales:
    """The scales that a session learns."""

    def __init__(self, parameters: list[nn.Parameter]):
        self._least = [(parameter, LEAST * parameter.detach().clone()) for parameter in parameters]

    def groups(self) -> list[dict]:
        """The groups of an optimizer: `share` multiplies the learning rate."""
        return [
            {"params": [parameter], "weight_decay": 0.0, "share": PACE * float(parameter.detach())}
            for parameter, _ in self._least
        ]

    def hold(self) -> None:
        """Keep them positive; call it after every update of the optimizer."""
        with torch.no_grad():
            for parameter, least in self._least:
                parameter.clamp_(min=least.to(parameter.device))

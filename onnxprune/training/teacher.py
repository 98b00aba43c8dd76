"""The teacher of the distillation: the input model, which is not trained."""

from __future__ import annotations

import copy

import torch
from torch import nn

from onnxprune.training.losses import Outputs
from onnxprune.training.precision import Precision
from onnxprune.training.samples import Samples


class Teacher:
    """A copy of a module as it is now, whose outputs the training follows."""

    def __init__(self, module: nn.Module, precision: Precision):
        self._module = copy.deepcopy(module).requires_grad_(False).eval()
        self._precision = precision

    def __call__(self, samples: Samples) -> Outputs:
        """The outputs for a batch, without gradients."""
        with torch.no_grad():
            return self._precision.outputs(self._module, samples)

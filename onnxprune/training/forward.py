"""One forward pass of a model as a torch module."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch

from onnxprune.training.graph import to_torch


def module_outputs(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name of the torch module that is made of a model, for inputs by name.

    Raises:
        UnsupportedOperatorError: an operator of the model cannot be trained.
        RuntimeError: torch's, where shapes do not fit.
    """
    module = to_torch(model)
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(feeds[name].copy()) for name in module.meta["inputs"]))
    return {name: output.numpy() for name, output in zip(module.meta["outputs"], outputs, strict=True)}

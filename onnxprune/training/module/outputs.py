"""The outputs of a model as a torch module."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from onnxprune.data.batch import Batch
from onnxprune.training.module.graph import to_torch


def torch_outputs(model: ir.Model, batch: Batch) -> list[np.ndarray]:
    """The outputs for a batch that one run is for, samples along the first axis; the model is not changed.

    Raises:
        UnsupportedOperatorError: an operator has no entry in the table.
        RuntimeError: torch cannot run the graph on shapes of this batch.
    """
    module, feeds = to_torch(model), batch.feeds()
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(feeds[name].copy()) for name in module.meta["inputs"]))
    return [
        batch.axes.samples(name, output.detach().numpy(), len(batch))
        for name, output in zip(module.meta["outputs"], outputs, strict=True)
    ]

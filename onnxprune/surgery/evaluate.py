"""Running one node in onnxruntime, so that constants are folded with the exact semantics of the model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.model.evaluate import run_nodes


def evaluate_node(node: ir.Node, inputs: list[np.ndarray | None], model: ir.Model) -> np.ndarray | None:
    """The first output of `node` for its inputs (None for an absent one); None where onnxruntime cannot run it."""
    proto = ir.to_proto(node)
    feeds = {}
    for index, array in enumerate(inputs):
        proto.input[index] = "" if array is None else f"input{index}"
        if array is not None:
            feeds[f"input{index}"] = array
    results = run_nodes([proto], feeds, [proto.output[0]], model)
    return None if results is None else results[0]

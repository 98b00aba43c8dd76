"""Any ONNX model as a torch module: what `onnxprune.to_torch` is."""

from __future__ import annotations

from torch import fx

from onnxprune.model.io import ModelLike, load
from onnxprune.sparse.restore import from_ops
from onnxprune.training import graph


def to_torch(model: ModelLike) -> fx.GraphModule:
    """The graph as a torch module that takes its inputs in order and returns a tuple of its outputs.

    `model` is a path, a ModelProto or an onnx_ir.Model, which is not changed; operators of the domain
    `onnxprune` become the dense ones they stand for. Parameters are named as the initializers;
    `training.graph.to_torch` says what `module.meta` holds and which types are computed in which.

    Raises:
        ModelFileError: there is no such file, or it is not ONNX.
        UnsupportedOperatorError: an operator, or a use of one, has no entry in the table.
    """
    loaded, _ = load(model)
    from_ops(loaded)
    return graph.to_torch(loaded)

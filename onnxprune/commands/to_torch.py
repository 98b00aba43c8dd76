"""`onnxprune.to_torch`: any ONNX model as a torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.model.files.io import ModelLike
from onnxprune.sparse.opening import open_model
from onnxprune.system.packages import require_package
from onnxprune.system.trust import Paths, trust

if TYPE_CHECKING:
    from torch import fx


def to_torch(model: ModelLike, *, allow_links: Paths = ()) -> fx.GraphModule:
    """The graph as a torch module that takes its inputs in order and returns a tuple of its outputs.

    `model` is a path, a ModelProto or an onnx_ir.Model, which is not changed; operators of the domain
    `onnxprune` become dense ones. Parameters have the names of the initializers. See `training.module.graph.to_torch`
    for `module.meta` and for the types of the computation. `allow_links`: as in `prune`.

    Raises:
        ModelFileError: there is no such file, or it is not ONNX.
        UnsupportedOperatorError: an operator, or a use of one, is not supported.
        MissingPackageError: torch is not installed.
    """
    require_package("torch", "to_torch")
    trust(allow_links)
    from onnxprune.training.module import graph

    return graph.to_torch(open_model(model).model)

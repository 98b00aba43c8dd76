"""`onnxprune.inspect`: the weights of a model, and which of them can be pruned."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.data.specs import type_name
from onnxprune.job.sizes import travelling
from onnxprune.model.files.io import ModelLike
from onnxprune.model.weights import Unprunable, Weight, find_weights
from onnxprune.sparse.opening import open_model
from onnxprune.system.trust import Paths, trust


@dataclass(frozen=True)
class WeightInfo:
    """A weight that can be pruned: its name, nodes, shape, and number of non-zero elements."""

    name: str
    op_type: str
    nodes: tuple[str, ...]
    shape: tuple[int, ...]
    size: int
    nonzero: int

    @classmethod
    def of(cls, weight: Weight) -> WeightInfo:
        names = weight.node_names
        return cls(weight.name, weight.op_type, names, weight.shape, weight.size, weight.nonzero())

    @property
    def density(self) -> float:
        """The fraction of the elements that are not zero."""
        return self.nonzero / max(self.size, 1)


@dataclass(frozen=True)
class Inspection:
    """A model: its bytes on disk, opset, inputs and outputs ("x float32 [N, 8]"), and its weights.

    `unprunable`: the weights that are left as they are, embeddings included. `gzip_bytes`: compressed; None for a large
    file.
    """

    name: str
    bytes: int
    opset: int | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[WeightInfo, ...]
    unprunable: tuple[Unprunable, ...]
    gzip_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The inspection in JSON types, each weight with its density."""
        weights = [asdict(weight) | {"density": weight.density} for weight in self.weights]
        return asdict(self) | {"weights": weights}


def inspect(model: ModelLike, *, allow_links: Paths = ()) -> Inspection:
    """The weights of a model with their density, and those that cannot be pruned with the reason.

    `allow_links`: as in `prune`.

    Raises:
        ModelFileError: there is no such file, it is not ONNX, or it is broken.
    """
    trust(allow_links)
    opened = open_model(model)
    graph, found = opened.model.graph, find_weights(opened.model)
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    return Inspection(
        opened.origin.name,
        opened.origin.file_bytes,
        opened.model.opset_imports.get(""),
        tuple(map(_value_text, inputs)),
        tuple(map(_value_text, graph.outputs)),
        tuple(map(WeightInfo.of, found.prunable)),
        found.left,
        travelling(opened.origin),
    )


def _value_text(value: ir.Value) -> str:
    """The name, type and dims of an input or output: x float32 [N, 8]."""
    dtype = "?" if value.dtype in (None, ir.DataType.UNDEFINED) else type_name(np.dtype(value.dtype.numpy()))
    dims = "?" if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{value.name} {dtype} [{dims}]"

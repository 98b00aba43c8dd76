"""The one door for input models: read a model, restore its sparse nodes to standard operators, compute its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxprune.model.computed import Computed, fold_computed
from onnxprune.model.files.io import ModelLike, Source, load
from onnxprune.sparse.restore import from_ops


@dataclass(frozen=True)
class OpenedModel:
    """A model as standard operators with dense weights, where it came from, and the weights that were computed.

    `values`: the types that values of sparse nodes were rounded to (fp16, int8, int4), by the name of the weight.
    """

    model: ir.Model
    origin: Source
    computed: tuple[Computed, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)


def open_model(source: ModelLike | OpenedModel) -> OpenedModel:
    """Open a model from a path or from memory, of any format that is written here; one that is open already stays so.

    What is given in memory is not changed.

    Raises:
        ModelFileError: there is no such file, it is not ONNX, broken or hostile, or a sparse node does not decode.
    """
    if isinstance(source, OpenedModel):
        return source
    model, origin = load(source)
    values = from_ops(model)
    return OpenedModel(model, origin, fold_computed(model), values)

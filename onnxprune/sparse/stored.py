"""How a weight is stored, and the constants that it is stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxprune.model.weights import Weight
from onnxprune.sparse.fold import Folded
from onnxprune.sparse.functions import DOMAIN
from onnxprune.sparse.parts import add_constant, part_names

# What two more tensors, with names of some twenty letters in the node and the value_info, take in the file.
NAMING_BYTES = 256


@dataclass(frozen=True)
class Stored:
    """How a weight is stored: in which form, in how many bytes, and why not smaller.

    `values` is the type of the stored values, where it is not the weight's own; `kept` the number of those that are
    not zero, where rounding may have changed it. `folded`: the nodes behind the weight that went into it.
    """

    name: str
    format: Literal["ops", "coo", "dense"]
    bytes: int
    reason: str | None = None
    values: str = ""
    kept: int | None = None
    folded: tuple[Folded, ...] = ()


class Constants:
    """Makes the constants that store a weight, and the nodes that decode them, beside it and named after it."""

    def __init__(self, weight: Weight, taken: set[str]) -> None:
        self.nbytes = 0
        self._beside = weight.value
        graph = weight.value.graph
        assert graph is not None
        self._before = weight.value.producer() or graph[0]
        self._names = part_names(weight.value.name or "", taken)

    def add(self, part: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
        self.nbytes += array.nbytes
        name = self._names[part]
        return add_constant(self._beside, name, f".{part}", ir.Tensor(array, dtype=dtype, name=name))

    def make(self, part: str, decoder_name: str, *inputs: ir.Value) -> ir.Value:
        """The output of a node of one of the functions in front."""
        name = self._names[part]
        node = ir.Node(DOMAIN, decoder_name, inputs, name=name)
        node.outputs[0].name = name
        assert self._before.graph is not None
        self._before.graph.insert_before(self._before, node)
        return node.outputs[0]


def why_no_gain(encoded: int, weight: Weight) -> str | None:
    sparse, dense = encoded + NAMING_BYTES, weight.tensor.nbytes
    return f"sparse it takes {sparse:,} bytes, names included, dense {dense:,}" if sparse >= dense else None


def stored_dense(weight: Weight, reason: str) -> Stored:
    return Stored(weight.name, "dense", weight.tensor.nbytes, reason)


def quantized_dense(weight: Weight) -> Stored:
    """A quantized weight in a format that has no form for it."""
    return stored_dense(weight, f"it is {weight.tensor.dtype.name.lower()}, which this format stores dense")

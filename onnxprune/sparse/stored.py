"""How a weight is stored, and the constants that it is stored in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import drop_constant
from onnxprune.model.weights import Weight
from onnxprune.sparse.decoders import UNPACK
from onnxprune.sparse.fold import Folded
from onnxprune.sparse.functions import DOMAIN, SPARSE_WEIGHT
from onnxprune.sparse.parts import add_constant, free_name, part_names

# What two more tensors, with names of some twenty letters in the node and the value_info, take in the file.
NAMING_BYTES = 256
NO_GAIN = "sparse it takes"


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
        self._weight = weight
        graph = weight.value.graph
        assert graph is not None
        self._before = weight.value.producer() or graph[0]
        self._taken = taken
        self._names = part_names(weight.value.name or "", taken)

    def add(self, part: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
        self.nbytes += array.nbytes
        name = self._names[part]
        return add_constant(self._beside, name, f".{part}", ir.Tensor(array, dtype=dtype, name=name))

    def make(self, decoder_name: str, inputs: Sequence[ir.Value], part: str) -> ir.Value:
        """The output of a node of one of the functions in front, named as this part."""
        name = self._names[part]
        node = ir.Node(DOMAIN, decoder_name, inputs, name=name)
        node.outputs[0].name = name
        assert self._before.graph is not None
        self._before.graph.insert_before(self._before, node)
        return node.outputs[0]

    def unpack(self, coded: np.ndarray, dtype: ir.DataType) -> Sequence[ir.Value]:
        """Values of this type and gaps, of what sparse/coding.py made of them.

        Their names are short, because names take some percent of a small file.
        """
        constant = self.add("coded", coded, ir.DataType.UINT8)
        node = ir.Node(DOMAIN, UNPACK, [constant], [dtype_of(dtype)], num_outputs=2)
        for output, letter in zip(node.outputs, "vg", strict=True):
            output.name = free_name(letter, self._taken)
        node.name = free_name("u", self._taken)
        assert self._before.graph is not None
        self._before.graph.insert_before(self._before, node)
        return node.outputs

    def decode(self, *parts: ir.Value) -> None:
        """Put a SparseWeight node in the place of the weight, under its name."""
        old, tensor = self._weight.value, self._weight.tensor
        node = ir.Node(DOMAIN, SPARSE_WEIGHT, parts, [dtype_of(tensor.dtype)], name=old.name)
        made = node.outputs[0]
        made.type, made.shape = ir.TensorType(tensor.dtype), ir.Shape(self._weight.shape)
        assert self._before.graph is not None
        self._before.graph.insert_before(self._before, node)
        name = old.name
        old.replace_all_uses_with(made, replace_graph_outputs=True)
        drop_constant(old)
        old.name, made.name = None, name


def dtype_of(dtype: ir.DataType) -> ir.Attr:
    """The attribute that names the type of the dense weight."""
    return ir.AttrInt64("dtype", int(dtype))


def why_no_gain(encoded: int, weight: Weight) -> str | None:
    """Why a weight that takes so many bytes sparse stays dense, or None."""
    sparse, dense = encoded + NAMING_BYTES, weight.tensor.nbytes
    return f"{NO_GAIN} {sparse:,} bytes, names included, dense {dense:,}" if sparse >= dense else None


def stored_dense(weight: Weight, reason: str) -> Stored:
    """A weight that stays as it is, and why."""
    return Stored(weight.name, "dense", weight.tensor.nbytes, reason, kept=kept_of(weight))


def kept_of(weight: Weight) -> int | None:
    """The number of values that are not zero, where rounding to integers may have changed it."""
    return weight.nonzero() if weight.quantized else None

"""Gemm | MatMul | Conv (X, weight) -> onnxprune::Sparse... (X, values, gaps, shape); restore.py leads back.

A node is changed in place: its name, outputs, metadata and position stay as they were, unless it takes in what
follows it (fold.py, fuse.py). The dense weight gives way to three constants named after it, `<weight>.values`,
`<weight>.gaps` and `<weight>.shape`: initializers of the same graph, or Constant nodes where it was one. Where
values are stored in fp16 or int8, nodes of the functions in front make some of the three of smaller constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxprune.model.shapes import infer_shapes
from onnxprune.model.weights import Weight
from onnxprune.sparse.encode import (
    MAX_HALF_GAP,
    encode,
    encoded_bytes,
    halves,
    pack_gaps,
    quantize,
)
from onnxprune.sparse.fold import AFFINE, Folded, Folder
from onnxprune.sparse.functions import (
    DECODERS,
    DEQUANTIZE,
    DOMAIN,
    DOMAIN_VERSION,
    DOMAINS,
    LAST_IR_WITH_LISTED_INITIALIZERS,
    MIN_IR_VERSION,
    MIN_OPSET,
    SPARSE_OPS,
    UNPACK_GAPS,
    decoder,
    function,
    has_sparse_op,
    sparse_op,
    standard_opset,
)
from onnxprune.sparse.fuse import fuse, set_inputs
from onnxprune.sparse.parts import add_constant, drop_constant, part_names, value_names

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


def to_ops(model: ir.Model, weights: Sequence[Weight], values: str = "fp32") -> list[Stored]:
    """Store weights sparse where that is smaller; `weights` are of this model, and stale afterwards.

    `values` in fp32 are the weights' own; in fp16 or int8 they are rounded, and what becomes 0 is not stored. A
    weight that fp16 or int8 cannot hold keeps its own values. What multiplies and adds constants behind a weight, such
    as BatchNormalization, goes into it (fold.py).

    The model's IR version rises to 8 at least. A weight's -0.0 becomes 0.0. With graph optimizations on, the default,
    outputs in onnxruntime stay the same to the bit, and to rounding where nodes were folded.
    """
    opset = standard_opset(model)
    if opset < MIN_OPSET:
        reason = f"sparse nodes need opset {MIN_OPSET}, the model's is {opset}"
        return [quantized_dense(w) if w.quantized else _dense(w, reason) for w in weights]
    taken = value_names(model)
    # Only shapes tell what is broadcast; no one infers them once there are sparse nodes.
    shapes = infer_shapes(model) if any(_is_affine(weight) for weight in weights) else {}
    folder = Folder(model, shapes, taken)
    stored = [_store(weight, values, taken, folder) for weight in weights]
    if any(outcome.format == "ops" for outcome in stored):
        fuse(model, shapes)
        _declare(model, opset)
    return stored


def quantized_dense(weight: Weight) -> Stored:
    """A quantized weight stays as it is: sparse nodes hold floats, and would lose the runtime's integer kernels."""
    return _dense(weight, _integers(weight))


def _integers(weight: Weight) -> str:
    return f"it is {weight.tensor.dtype.name.lower()}, which sparse nodes do not compute in"


def _is_affine(weight: Weight) -> bool:
    """Whether something multiplies or adds to what a node makes with the weight."""
    return any(reader.op_type in AFFINE for use in weight.uses for reader, _ in use.node.outputs[0].uses())


def _store(weight: Weight, values: str, taken: set[str], folder: Folder) -> Stored:
    reason = _why_dense(weight)
    if reason is None and not folder.fixed(weight.value):
        reason = "it is an input of the graph too, which callers can override"
    if reason is None:
        reason = _why_no_gain(encode(weight.array()).nbytes, weight)
    if reason is not None:
        return _dense(weight, reason)
    folded = folder.fold(weight, half=values == "fp16" or weight.tensor.dtype == ir.DataType.FLOAT16)
    rounded, scales = _rounded(weight, values)
    constants = _Constants(weight, taken)
    encoded = encode(weight.array() if rounded is None else rounded)
    packed = None
    if rounded is not None:
        # Two gaps a byte, where that saves more than the further fillers cost.
        tighter = encode(rounded, MAX_HALF_GAP)
        if tighter.values.nbytes + len(tighter.gaps) // 2 < encoded.values.nbytes + len(encoded.gaps):
            encoded, packed = tighter, pack_gaps(tighter.gaps)
    dtype = weight.tensor.dtype
    stored_type = dtype if rounded is None else ir.DataType.from_numpy(rounded.dtype)
    stored = constants.add("values" if scales is None else "quantized", encoded.values, stored_type)
    if packed is None:
        gaps = constants.add("gaps", encoded.gaps, ir.DataType.UINT8)
    else:
        gaps = constants.make("gaps", UNPACK_GAPS, constants.add("packed", packed, ir.DataType.UINT8), stored)
    if scales is not None:
        step = int(np.prod(weight.shape[weight.out_axis + 1 :], dtype=np.int64))
        layout = np.array([len(scales), step], np.int64)
        stored = constants.make(
            "values",
            DEQUANTIZE,
            stored,
            gaps,
            constants.add("scales", scales, ir.DataType.FLOAT),
            constants.add("layout", layout, ir.DataType.INT64),
        )
    shape = constants.add("shape", encoded.shape, ir.DataType.INT64)
    for use in weight.uses:
        _make_sparse(use.node, use.index, [stored, gaps, shape], dtype)
    drop_constant(weight.value)
    kept = int(np.count_nonzero(encoded.values)) if folded or rounded is not None else None
    if rounded is None:
        reason = (
            None if values == "fp32" else f"{values} cannot hold its values, which stay {dtype.name.lower()}"
        )
        return Stored(weight.name, "ops", constants.nbytes, reason, "", kept, folded)
    return Stored(weight.name, "ops", constants.nbytes, None, values, kept, folded)


def _rounded(weight: Weight, values: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The weight in fp16, or in int8 with its scales; None where it keeps its own values."""
    if values == "fp16" and weight.tensor.dtype != ir.DataType.FLOAT16:
        return halves(weight.array(), weight.out_axis), None
    if values == "int8":
        return quantize(weight.array(), weight.out_axis) or (None, None)
    return None, None


class _Constants:
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


def _why_dense(weight: Weight) -> str | None:
    """Why a weight must stay as it is, or None; told without encoding it."""
    if weight.quantized:
        return _integers(weight)
    if weight.tensor.dtype == ir.DataType.BFLOAT16:
        return "onnxruntime's CPU provider computes nothing in bfloat16"
    if weight.value.is_graph_output():
        return "it is an output of its graph"
    places = [(use.node, use.index) for use in weight.uses]
    for node, index in weight.value.uses():
        if (node, index) not in places:
            return f"{node.op_type} node {node.name!r} reads it too"
    nodes = [use.node for use in weight.uses]
    for node, index in places:
        if not has_sparse_op(node, index):
            return f"{node.op_type} has no sparse form"
    for node in nodes:
        if node.domain in DOMAINS or nodes.count(node) > 1:
            return f"both operands of node {node.name!r} are weights, and only one can be sparse"
    return _why_no_gain(encoded_bytes(weight.nonzero(), weight.array().itemsize, len(weight.shape)), weight)


def _why_no_gain(encoded: int, weight: Weight) -> str | None:
    sparse, dense = encoded + NAMING_BYTES, weight.tensor.nbytes
    return f"sparse it takes {sparse:,} bytes, names included, dense {dense:,}" if sparse >= dense else None


def _dense(weight: Weight, reason: str) -> Stored:
    return Stored(weight.name, "dense", weight.tensor.nbytes, reason)


def _declare(model: ir.Model, opset: int) -> None:
    """Give the model what its sparse nodes need: functions, opset import, IR version."""
    names = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    definitions = [function(op, opset) for name, op in SPARSE_OPS.items() if name in names]
    definitions += [decoder(name, opset) for name in DECODERS if name in names]
    for definition in definitions:
        model.functions[definition.identifier()] = definition
    model.opset_imports[DOMAIN] = DOMAIN_VERSION
    if model.ir_version <= LAST_IR_WITH_LISTED_INITIALIZERS:
        # Later, a listed initializer is one that callers can override, and nothing that reads it is folded.
        for value in [value for value in model.graph.inputs if value.is_initializer()]:
            model.graph.inputs.remove(value)
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)


def _make_sparse(node: ir.Node, weight_index: int, constants: Sequence[ir.Value], dtype: ir.DataType) -> None:
    op = sparse_op(node, weight_index)
    first, *others = (value for index, value in enumerate(node.inputs) if index != weight_index)
    set_inputs(node, [first, *constants, *others])
    node.domain, node.op_type = DOMAIN, op.name
    node.attributes["dtype"] = ir.AttrInt64("dtype", int(dtype))

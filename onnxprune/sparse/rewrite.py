"""Gemm | MatMul | Conv (X, weight) -> onnxprune::Sparse... (X, values, gaps, shape), and back.

A node is changed in place: its name, outputs, metadata and position stay as they were, unless it takes in what
follows it (fuse.py). The dense weight gives
way to three constants named after it, `<weight>.values`, `<weight>.gaps` and `<weight>.shape`: initializers
of the same graph, or Constant nodes where it was one. Where values are stored in fp16 or int8, nodes of the
functions in front make some of the three of smaller constants.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelFileError
from onnxprune.model.constants import constant_tensor
from onnxprune.model.reading import FLOAT_TYPES
from onnxprune.model.shapes import infer_shapes
from onnxprune.model.weights import Weight
from onnxprune.sparse.encode import (
    MAX_HALF_GAP,
    decode,
    dequantize,
    encode,
    encoded_bytes,
    halves,
    pack_gaps,
    quantize,
    unpack_gaps,
)
from onnxprune.sparse.functions import (
    DECODERS,
    DEQUANTIZE,
    DOMAIN,
    DOMAIN_VERSION,
    DOMAINS,
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
from onnxprune.sparse.fuse import fuse, set_inputs, unfuse

# What two more tensors, with names of some twenty letters in the node and the value_info, take in the file.
NAMING_BYTES = 256
# Up to this IR version every initializer had to be listed as a graph input, and was constant all the same.
LAST_IR_WITH_LISTED_INITIALIZERS = 3

_PARTS = ("values", "gaps", "shape", "quantized", "packed", "scales", "layout")


@dataclass(frozen=True)
class Stored:
    """How a weight is stored: in which form, in how many bytes, and why not smaller.

    `values` is the type of the stored values, where it is not the weight's own; `kept` the number of those that are
    not zero, where rounding may have changed it.
    """

    name: str
    format: Literal["ops", "coo", "dense"]
    bytes: int
    reason: str | None = None
    values: str = ""
    kept: int | None = None


def to_ops(model: ir.Model, weights: Sequence[Weight], values: str = "fp32") -> list[Stored]:
    """Store weights sparse where that is smaller; `weights` are of this model, and stale afterwards.

    `values` in fp32 are the weights' own; in fp16 or int8 they are rounded, and what becomes 0 is not stored. A
    weight that fp16 or int8 cannot hold keeps its own values.

    The model's IR version rises to 8 at least. A weight that was also a graph input (a default that callers
    could override) becomes a constant, and a weight's -0.0 becomes 0.0. With graph optimisations on, the
    default, outputs in onnxruntime stay the same to the bit.
    """
    opset = standard_opset(model)
    if opset < MIN_OPSET:
        reason = f"sparse nodes need opset {MIN_OPSET}, the model's is {opset}"
        return [quantized_dense(w) if w.quantized else _dense(w, reason) for w in weights]
    taken = _value_names(model)
    # Only shapes tell what an Add broadcasts; no one infers them once there are sparse nodes.
    shapes = infer_shapes(model) if any(_is_added(weight) for weight in weights) else {}
    stored = [_store(weight, values, taken) for weight in weights]
    if any(outcome.format == "ops" for outcome in stored):
        fuse(model, shapes)
        _declare(model, opset)
    return stored


def from_ops(model: ir.Model) -> None:
    """Undo `to_ops`: standard nodes with dense weights under their old names, without functions and domain.

    The IR version stays. A weight whose old name is taken by now gets a number behind it.

    Raises:
        ModelFileError: a node of domain `onnxprune` that this version does not know, or a weight that is not
            constant or does not decode.
    """
    for domain in DOMAINS:
        version = model.opset_imports.get(domain, DOMAIN_VERSION)
        if version != DOMAIN_VERSION:
            raise ModelFileError(
                f"the model uses version {version} of the {domain} operators, of which this onnxprune knows "
                f"version {DOMAIN_VERSION}: use the onnxprune that wrote it"
            )
    taken = _value_names(model)
    unfuse(model, taken)
    weights: dict[tuple[ir.Value, ...], ir.Value] = {}
    sparse_nodes = [node for node in model.graph.all_nodes() if node.domain in DOMAINS]
    for node in [node for node in sparse_nodes if node.op_type not in DECODERS]:
        constants = _constants(node)
        if constants not in weights:
            weights[constants] = _decoded(node, constants, taken)
        _make_standard(node, weights[constants])
    _drop_unread(set(_with_what_decodes_to(part for constants in weights for part in constants)))
    for identifier in [identifier for identifier in model.functions if identifier[0] in DOMAINS]:
        del model.functions[identifier]
    for domain in DOMAINS:
        model.opset_imports.pop(domain, None)


def quantized_dense(weight: Weight) -> Stored:
    """A quantized weight stays as it is: sparse nodes hold floats, and would lose the runtime's integer kernels."""
    return _dense(weight, _integers(weight))


def _integers(weight: Weight) -> str:
    return f"it is {weight.tensor.dtype.name.lower()}, which sparse nodes do not compute in"


def _is_added(weight: Weight) -> bool:
    """Whether an Add reads what a node makes with the weight."""
    return any(reader.op_type == "Add" for use in weight.uses for reader, _ in use.node.outputs[0].uses())


def _store(weight: Weight, values: str, taken: set[str]) -> Stored:
    reason = _why_dense(weight)
    if reason is None:
        reason = _why_no_gain(encode(weight.array()).nbytes, weight)
    if reason is not None:
        return _dense(weight, reason)
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
    _drop_constant(weight.value)
    if rounded is None:
        reason = (
            None if values == "fp32" else f"{values} cannot hold its values, which stay {dtype.name.lower()}"
        )
        return Stored(weight.name, "ops", constants.nbytes, reason)
    kept = int(np.count_nonzero(encoded.values))
    return Stored(weight.name, "ops", constants.nbytes, None, values, kept)


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
        self._names = _part_names(weight.value.name or "", taken)

    def add(self, part: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
        self.nbytes += array.nbytes
        name = self._names[part]
        return _add_constant(self._beside, name, f".{part}", ir.Tensor(array, dtype=dtype, name=name))

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


def _make_standard(node: ir.Node, weight: ir.Value) -> None:
    op = SPARSE_OPS[node.op_type]
    operands = [node.inputs[0], *node.inputs[4:]]
    operands.insert(op.weight_index, weight)
    set_inputs(node, operands)
    node.domain, node.op_type = "", op.op_type
    del node.attributes["dtype"]


def _constants(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The values, gaps and shape of a sparse node, which must be constants."""
    if node.op_type not in SPARSE_OPS:
        raise ModelFileError(
            f"node {node.name!r} is a {DOMAIN}::{node.op_type}, which this onnxprune does not know: "
            "use the onnxprune that wrote the model"
        )
    parts = node.inputs[1:4]
    if len(parts) < 3 or not all(_is_constant(part) for part in parts):
        raise ModelFileError(
            f"the weight of {node.op_type} node {node.name!r} is not constant: "
            "write the model again with onnxprune"
        )
    values, gaps, shape = parts
    assert values is not None and gaps is not None and shape is not None
    return values, gaps, shape


def _decoded(node: ir.Node, constants: tuple[ir.Value, ...], taken: set[str]) -> ir.Value:
    """The dense weight of a sparse node, as a constant beside its `values`."""
    values = constants[0]
    name = _weight_name(values, taken)
    attribute = node.attributes.get("dtype")
    dtype = attribute.value if attribute is not None else None
    if dtype not in tuple(FLOAT_TYPES):
        raise ModelFileError(
            f"{node.op_type} node {node.name!r} has no float type as its dtype: "
            "write the model again with onnxprune"
        )
    values_array, gaps, shape = (_array(constant) for constant in constants)
    weight = decode(values_array, gaps, shape, f"sparse weight {name!r}")
    weight = weight.astype(ir.DataType(dtype).numpy(), copy=False)
    return _add_constant(_stored(values), name, "", ir.Tensor(weight, dtype=ir.DataType(dtype), name=name))


def _is_constant(part: ir.Value | None) -> bool:
    """Whether a part of a weight is constant, or decoded of what is."""
    maker = part.producer() if part is not None else None
    if maker is not None and maker.domain == DOMAIN and maker.op_type in DECODERS:
        return all(_is_constant(value) for value in maker.inputs)
    return constant_tensor(part) is not None


def _stored(part: ir.Value) -> ir.Value:
    """The constant that a part of a weight is, or is decoded of."""
    maker = part.producer()
    if maker is None or maker.domain != DOMAIN:
        return part
    assert maker.inputs[0] is not None
    return _stored(maker.inputs[0])


def _array(constant: ir.Value) -> np.ndarray:
    maker = constant.producer()
    if maker is not None and maker.domain == DOMAIN:
        return _decoded_part(maker)
    tensor = constant_tensor(constant)
    assert tensor is not None
    try:
        return tensor.numpy()
    except (ValueError, TypeError) as error:
        raise ModelFileError(
            f"{constant.name!r} holds other data than its shape says: write the model again"
        ) from error


def _decoded_part(maker: ir.Node) -> np.ndarray:
    """What a node of one of the functions in front makes."""
    try:
        arrays = [_array(value) for value in maker.inputs if value is not None]
        if maker.op_type == DEQUANTIZE:
            return dequantize(*arrays)
        packed, values = arrays
        return unpack_gaps(packed, len(values))
    except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        raise ModelFileError(
            f"{maker.op_type} node {maker.name!r} cannot be decoded ({error}): write the model again with onnxprune"
        ) from error


def _with_what_decodes_to(parts: Iterable[ir.Value]) -> Iterator[ir.Value]:
    """Parts of weights, and those that they are decoded of."""
    for part in parts:
        yield part
        maker = part.producer()
        if maker is not None and maker.domain == DOMAIN:
            yield from _with_what_decodes_to(value for value in maker.inputs if value is not None)


def _drop_unread(parts: set[ir.Value]) -> None:
    """Remove those that nothing reads any more; the rest is then read no longer in its turn."""
    while unread := [part for part in parts if not part.uses() and not part.is_graph_output()]:
        parts.difference_update(unread)
        for part in unread:
            maker = part.producer()
            if maker is None or maker.domain != DOMAIN:
                _drop_constant(part)
            else:
                assert maker.graph is not None
                maker.graph.remove(maker, safe=True)


def _value_names(model: ir.Model) -> set[str]:
    """The names of all values in the graph and its subgraphs."""
    names: set[str | None] = set()
    for graph in (model.graph, *model.graph.subgraphs()):
        names.update(value.name for value in (*graph.inputs, *graph.initializers.values()))
        names.update(output.name for node in graph for output in node.outputs)
    return {name for name in names if name}


def _part_names(weight_name: str, taken: set[str]) -> dict[str, str]:
    """Names for the parts of a weight; numbered alike where one of them is taken."""
    for number in count(1):
        ending = "" if number == 1 else f"_{number}"
        names = {part: f"{weight_name}.{part}{ending}" for part in _PARTS}
        if taken.isdisjoint(names.values()):
            break
    taken.update(names.values())
    return names


def _weight_name(values: ir.Value, taken: set[str]) -> str:
    """The weight's name as `_part_names` was given it: 'fc.values_2' -> 'fc'.

    Graphs side by side may hold weights of one name, so that what is restored here does not count as taken.
    """
    name = values.name or ""
    match = re.fullmatch(r"(.+)\.values(_\d+)?", name)
    wanted = match[1] if match else f"{name}.weight"
    return next(free for n in count(1) if (free := wanted if n == 1 else f"{wanted}_{n}") not in taken)


def _add_constant(beside: ir.Value, name: str, node_ending: str, tensor: ir.Tensor) -> ir.Value:
    """A constant like `beside`: an initializer of its graph, or a Constant node before its own."""
    node = beside.producer()
    if node is None:
        graph = beside.graph
        assert graph is not None
        value = ir.Value(name=name, const_value=tensor)
        graph.register_initializer(value)
    else:
        graph = node.graph
        assert graph is not None
        constant = ir.Node(
            "",
            "Constant",
            [],
            [ir.AttrTensor("value", tensor)],
            name=f"{node.name.removesuffix('.values')}{node_ending}" if node.name else "",
            doc_string=node.doc_string,
            metadata_props=dict(node.metadata_props),
        )
        value = constant.outputs[0]
        value.name = name
        graph.insert_before(node, constant)
    if beside.type is not None:
        value.type = ir.TensorType(tensor.dtype)
        value.shape = tensor.shape
    value.doc_string = beside.doc_string
    value.metadata_props.update(beside.metadata_props)
    return value


def _drop_constant(value: ir.Value) -> None:
    node = value.producer()
    if node is not None:
        assert node.graph is not None
        node.graph.remove(node, safe=True)
        return
    graph = value.graph
    assert graph is not None and value.name is not None
    del graph.initializers[value.name]
    # Whoever still holds the value need not hold the weight as well.
    value.const_value = None
    if value.is_graph_input():
        graph.inputs.remove(value)

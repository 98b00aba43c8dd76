"""What `to_ops` did, undone.

onnxprune::Sparse... (X, values, gaps, shape)     ->  Gemm | MatMul | Conv (X, weight)
onnxprune::SparseWeight (values, gaps, shape)     ->  weight
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelFileError
from onnxprune.model.constants import drop_constant
from onnxprune.model.names import name_of
from onnxprune.model.operands import is_read
from onnxprune.model.reading import FLOAT_TYPES
from onnxprune.sparse.between import leave
from onnxprune.sparse.blocks import decode_blocks
from onnxprune.sparse.decoders import (
    DECODERS,
    DEQUANTIZE,
    UNPACK,
    decoder_of,
    is_constant,
    part_array,
    stored_constant,
)
from onnxprune.sparse.encode import LARGEST, Encoded, decode
from onnxprune.sparse.functions import (
    DOMAIN,
    DOMAIN_VERSION,
    DOMAINS,
    SPARSE_OPS,
    SPARSE_WEIGHT,
    STORED_INTEGERS,
)
from onnxprune.sparse.fuse import set_inputs, unfuse
from onnxprune.sparse.parts import add_constant, value_names, weight_name
from onnxprune.sparse.quantized import restore_quantized, zero_point_of
from onnxprune.sparse.quantized_functions import QUANTIZED_OPS


def from_ops(model: ir.Model) -> dict[str, str]:
    """Undo `to_ops`: standard nodes with dense weights under their old names, without functions and domain.

    The IR version stays. A weight whose old name is taken by now gets a number behind it. Returns the types that values
    were rounded to (fp16, int8, int4), by the name of the weight.

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
    taken = value_names(model)
    leave(model)
    unfuse(model, taken)
    weights: dict[tuple[ir.Value | bytes, ...], ir.Value] = {}
    types: dict[str, str] = {}
    parts: set[ir.Value] = set()
    sparse_nodes = [node for node in model.graph.all_nodes() if node.domain in DOMAINS]
    for node in [node for node in sparse_nodes if node.op_type not in DECODERS]:
        constants = _constants(node)
        parts.update(_with_what_decodes_to(constants))
        if node.op_type == SPARSE_WEIGHT:
            _put_back(node, constants, types)
            continue
        quantized = node.op_type in QUANTIZED_OPS
        # Nodes that share a weight, but not its zero point, have weights of their own.
        key = (*constants, zero_point_of(node).tobytes()) if quantized else constants
        if key not in weights:
            name = weight_name(_source(constants[0]).name or "", taken)
            weights[key] = (
                _decoded_integers(node, constants, name)
                if quantized
                else _decoded(node, constants, name, FLOAT_TYPES, types)
            )
        if quantized:
            restore_quantized(node, weights[key], taken)
        else:
            _make_standard(node, weights[key])
    _drop_unread(parts)
    for identifier in [identifier for identifier in model.functions if identifier[0] in DOMAINS]:
        del model.functions[identifier]
    for domain in DOMAINS:
        model.opset_imports.pop(domain, None)
    return types


def _make_standard(node: ir.Node, weight: ir.Value) -> None:
    op = SPARSE_OPS[node.op_type]
    operands = [node.inputs[0], *node.inputs[4:]]
    operands.insert(op.weight_index, weight)
    set_inputs(node, operands)
    node.domain, node.op_type = "", op.op_type
    del node.attributes["dtype"]


def _put_back(node: ir.Node, constants: tuple[ir.Value, ...], found: dict[str, str]) -> None:
    """Make what a SparseWeight node decodes a constant again, under the name of the node's output."""
    output, graph = node.outputs[0], node.graph
    name, output.name = output.name or "", None
    weight = _decoded(node, constants, name, (*FLOAT_TYPES, *STORED_INTEGERS), found)
    output.replace_all_uses_with(weight, replace_graph_outputs=True)
    assert graph is not None
    graph.remove(node, safe=True)


def _constants(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The values, gaps and shape of a sparse node, which must be constants."""
    bare, quantized = node.op_type == SPARSE_WEIGHT, node.op_type in QUANTIZED_OPS
    if not (bare or quantized or node.op_type in SPARSE_OPS):
        raise ModelFileError(
            f"node {name_of(node)!r} is a {DOMAIN}::{node.op_type}, which this onnxprune does not know: "
            "use the onnxprune that wrote the model"
        )
    first = 0 if bare else QUANTIZED_OPS[node.op_type].inputs.index("values") if quantized else 1
    parts = node.inputs[first : first + 3]
    if len(parts) < 3 or not all(is_constant(part) for part in parts):
        raise ModelFileError(
            f"the weight of {node.op_type} node {name_of(node)!r} is not constant: "
            "write the model again with onnxprune"
        )
    values, gaps, shape = parts
    assert values is not None and gaps is not None and shape is not None
    return values, gaps, shape


def _decoded(
    node: ir.Node,
    constants: tuple[ir.Value, ...],
    name: str,
    types: Collection[ir.DataType],
    found: dict[str, str],
) -> ir.Value:
    """The dense weight of a sparse node, as a constant of this name beside its `values`; its type goes to `found`."""
    values = constants[0]
    attribute = node.attributes.get("dtype")
    dtype = attribute.value if attribute is not None else None
    if dtype not in tuple(types):
        kinds = "float type" if types is FLOAT_TYPES else "float type, int8 or uint8"
        raise ModelFileError(
            f"{node.op_type} node {name_of(node)!r} has no {kinds} as its dtype: write the model again with onnxprune"
        )
    values_array, gaps, shape = (part_array(constant) for constant in constants)
    weight = decode(values_array, gaps, shape, f"sparse weight {name!r}")
    weight = weight.astype(ir.DataType(dtype).numpy(), copy=False)
    if rounded := _rounded_to(values, values_array, weight.dtype):
        found[name] = rounded
    return add_constant(
        stored_constant(values), name, "", ir.Tensor(weight, dtype=ir.DataType(dtype), name=name)
    )


def _rounded_to(values: ir.Value, array: np.ndarray, dtype: np.dtype) -> str:
    """The type that values, decoded to `array`, were rounded to; empty if they are the weight's own."""
    maker = decoder_of(values)
    if maker is None or maker.op_type != DEQUANTIZE:
        return "fp16" if array.dtype == np.float16 != dtype else ""
    scales = maker.inputs[2]
    assert scales is not None
    step = part_array(scales).max(initial=0)
    return "int4" if np.abs(array).max(initial=0) < (LARGEST["int4"] + 0.5) * step else "int8"


def _decoded_integers(node: ir.Node, constants: tuple[ir.Value, ...], name: str) -> ir.Value:
    """The dense weight of a sparse node of integers, as a constant of this name beside its `values`."""
    values = constants[0]
    blocks = Encoded(*(part_array(constant) for constant in constants))
    axis = QUANTIZED_OPS[node.op_type].input_axis
    weight = decode_blocks(blocks, zero_point_of(node), axis, f"sparse weight {name!r}")
    return add_constant(stored_constant(values), name, "", ir.Tensor(weight, name=name))


def _source(values: ir.Value) -> ir.Value:
    """The value that is named after a weight: its values, or what they are unpacked of."""
    maker = decoder_of(values)
    return values if maker is None or maker.op_type != UNPACK else stored_constant(values)


def _with_what_decodes_to(parts: Iterable[ir.Value]) -> Iterator[ir.Value]:
    """Parts of weights, and those that they are decoded of."""
    for part in parts:
        yield part
        if (maker := decoder_of(part)) is not None:
            yield from _with_what_decodes_to(value for value in maker.inputs if value is not None)


def _drop_unread(parts: set[ir.Value]) -> None:
    """Remove those that nothing reads any more; the rest is then read no longer in its turn."""
    while unread := [part for part in parts if not is_read(part)]:
        parts.difference_update(unread)
        for part in unread:
            maker = decoder_of(part)
            if maker is None:
                drop_constant(part)
            elif not any(output.uses() for output in maker.outputs) and maker.graph is not None:
                maker.graph.remove(maker, safe=True)

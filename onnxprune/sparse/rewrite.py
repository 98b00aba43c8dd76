"""Weights in the sparse form; restore.py leads back.

    Gemm | MatMul | Conv (X, weight)  ->  onnxprune::Sparse... (X, values, gaps, shape)
    weight, read by anything else     ->  onnxprune::SparseWeight (values, gaps, shape)

A node is changed in place: its name, outputs, metadata and position stay as they were, unless it takes in what
follows it (fold.py, fuse.py). What reads the output of a SparseWeight is not changed. The dense weight gives way to
three constants named after it, `<weight>.values`, `<weight>.gaps` and `<weight>.shape`: initializers of the same graph,
or Constant nodes where it was one. Where they are stored smaller, nodes of the functions in front (decoders.py) make
some of the three of other constants.

Quantized operators are in quantized.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import onnx_ir as ir

from onnxprune.model.constants import drop_constant
from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.model.weights import Weight
from onnxprune.sparse import coding
from onnxprune.sparse.between import accompany
from onnxprune.sparse.decoders import decoder_function
from onnxprune.sparse.encode import LARGEST
from onnxprune.sparse.fold import AFFINE, Folder
from onnxprune.sparse.functions import (
    DOMAIN,
    DOMAIN_VERSION,
    DOMAINS,
    LAST_IR_WITH_LISTED_INITIALIZERS,
    MIN_IR_VERSION,
    MIN_OPSET,
    SPARSE_OPS,
    STORED_INTEGERS,
    function,
    has_sparse_op,
    sparse_op,
    standard_opset,
    weight_function,
)
from onnxprune.sparse.fuse import fuse, set_inputs
from onnxprune.sparse.parts import value_names
from onnxprune.sparse.quantized import store_quantized
from onnxprune.sparse.quantized_functions import QUANTIZED_OPS, blocks_function, quantized_function
from onnxprune.sparse.rounding import parts_again, parts_of
from onnxprune.sparse.stored import Constants, Stored, dtype_of, kept_of, stored_dense, why_no_gain


def to_ops(
    model: ir.Model,
    weights: Sequence[Weight],
    values: str = "fp32",
    *,
    instead: Mapping[str, str] = MappingProxyType({}),
    before: Mapping[str, str] = MappingProxyType({}),
) -> list[Stored]:
    """Store weights sparse where that is smaller; `weights` are of this model, and stale afterwards.

    `values` in fp32 are the weights' own; in fp16 or int8 they are rounded, and what becomes 0 is not stored. A
    weight that fp16 or int8 cannot hold keeps its own values, and so does a quantized one. What multiplies and adds
    constants behind a weight, such as BatchNormalization, goes into it (fold.py). `instead`: the type of weights of
    which it is another one than `values`, by name. `before`: the types that weights were stored in when the model was
    read; with fp32, those whose values these still hold exactly are stored so again.

    The model's IR version rises to 8 at least. A weight's -0.0 becomes 0.0. With graph optimizations on, the default,
    outputs in onnxruntime stay the same to the bit, and to rounding where nodes were folded.
    """
    opset = standard_opset(model)
    if opset < MIN_OPSET:
        reason = f"sparse nodes need opset {MIN_OPSET}, the model's is {opset}"
        return [stored_dense(weight, reason) for weight in weights]
    taken = value_names(model)
    # Only shapes tell what is broadcast; no one infers them once there are sparse nodes.
    shapes = infer_shapes(model) if any(_is_affine(weight) for weight in weights) else {}
    folder = Folder(model, shapes, taken)
    wanted = {weight.name: instead.get(weight.name, values) for weight in weights}
    again = {} if values != "fp32" else before
    integers = [
        weight
        for weight in weights
        if weight.quantized or LARGEST.keys() & {wanted[weight.name], again.get(weight.name)}
    ]
    coded = sum(weight.nonzero() for weight in integers) >= coding.LEAST_CODED
    stored = [
        _store(weight, wanted[weight.name], again.get(weight.name, ""), taken, folder, opset, coded)
        for weight in weights
    ]
    if any(outcome.format == "ops" for outcome in stored):
        fuse(model, shapes)
        _declare(model, opset)
        accompany(model)
    return stored


def _is_affine(weight: Weight) -> bool:
    """Whether something multiplies or adds to what a node makes with the weight."""
    return any(reader.op_type in AFFINE for use in weight.uses for reader, _ in use.node.outputs[0].uses())


def _store(
    weight: Weight, values: str, before: str, taken: set[str], folder: Folder, opset: int, coded: bool
) -> Stored:
    if weight.quantized:
        outcome = store_quantized(weight, taken, opset, coded)
        if outcome.format == "ops":
            return outcome
    reason = _why_dense(weight)
    if reason is None and not folder.fixed(weight.value):
        reason = "it is an input of the graph too, which callers can override"
    if reason is not None:
        return stored_dense(weight, reason)
    made = partial(parts_again, values=before) if before else partial(parts_of, values=values)
    parts = made(weight, coded=coded)
    if (reason := why_no_gain(parts.nbytes, weight)) is not None:
        return stored_dense(weight, reason)
    kept = kept_of(weight)
    dtype = weight.tensor.dtype
    bare = not _has_sparse_nodes(weight)
    half = "fp16" in (values, parts.values) or dtype == ir.DataType.FLOAT16
    folded = () if bare else folder.fold(weight, half=half)
    if folded:
        parts = made(weight, coded=coded)
    constants = Constants(weight, taken)
    inputs = parts.add_to(constants, dtype)
    if bare:
        constants.decode(*inputs)
    else:
        for use in weight.uses:
            _make_sparse(use.node, use.index, inputs, dtype)
        drop_constant(weight.value)
    if folded or parts.values:
        kept = parts.kept
    if not parts.values and values != "fp32":
        reason = f"{values} cannot hold its values, which stay {dtype.name.lower()}"
    return Stored(weight.name, "ops", constants.nbytes, reason, parts.values, kept, folded)


def _why_dense(weight: Weight) -> str | None:
    """Why a weight must stay as it is, whatever is gained, or None."""
    dtype = weight.tensor.dtype
    if dtype == ir.DataType.BFLOAT16:
        return "onnxruntime's CPU provider computes nothing in bfloat16"
    if weight.quantized and (dtype not in STORED_INTEGERS or weight.encoding.zero.any()):
        return f"it is {dtype.name.lower()}" + (
            ", with a zero point that is not 0" if dtype in STORED_INTEGERS else ""
        )
    return None


def _has_sparse_nodes(weight: Weight) -> bool:
    """Whether everything that reads a weight is a node that can become a sparse one."""
    places = [(use.node, use.index) for use in weight.uses]
    nodes = [node for node, _ in places]
    return (
        not weight.quantized
        and not weight.value.is_graph_output()
        and all((node, index) in places for node, index in weight.value.uses())
        and all(node.inputs[index] is weight.value and has_sparse_op(node, index) for node, index in places)
        # Of two operands that are weights, only one can be sparse.
        and all(node.domain not in DOMAINS and nodes.count(node) == 1 for node in nodes)
    )


def _declare(model: ir.Model, opset: int) -> None:
    """Give the model what its sparse nodes need: functions, opset import, IR version."""
    names = [node.op_type for node in model.graph.all_nodes() if node.domain in DOMAINS]
    while names:
        definition = _definition(names.pop(), opset)
        if definition.identifier() not in model.functions:
            model.functions[definition.identifier()] = definition
            names += [node.op_type for node in definition if node.domain in DOMAINS]
    model.opset_imports[DOMAIN] = DOMAIN_VERSION
    if model.ir_version <= LAST_IR_WITH_LISTED_INITIALIZERS:
        # Later, a listed initializer is one that callers can override, and nothing that reads it is folded.
        for value in [value for value in model.graph.inputs if value.is_initializer()]:
            model.graph.inputs.remove(value)
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)


def _definition(name: str, opset: int) -> ir.Function:
    """The function of an operator of domain `onnxprune`."""
    if name in SPARSE_OPS:
        return function(SPARSE_OPS[name], opset)
    if name in QUANTIZED_OPS:
        return quantized_function(QUANTIZED_OPS[name], opset)
    found = decoder_function(name, opset) or blocks_function(name, opset)
    return weight_function(opset) if found is None else found


def _make_sparse(node: ir.Node, weight_index: int, constants: Sequence[ir.Value], dtype: ir.DataType) -> None:
    op = sparse_op(node, weight_index)
    first, *others = (value for index, value in enumerate(node.inputs) if index != weight_index)
    set_inputs(node, [first, *constants, *others])
    node.domain, node.op_type = DOMAIN, op.name
    node.attributes["dtype"] = dtype_of(dtype)

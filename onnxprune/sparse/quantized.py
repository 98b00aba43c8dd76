"""QLinearConv | QGemm | MatMulInteger | ..., or Conv | MatMul | Gemm in QDQ form -> onnxprune::SparseQ..., and back.

In QDQ form the node with the weight, the DequantizeLinear nodes before it and the QuantizeLinear node behind it become
one, and so do a node that makes sums and those that multiply them by scales: what onnxruntime makes of them as well.
Nothing else may read what lies between them.

The DequantizeLinear of x may have other readers, and stays for them. What is put back has the same operators and
constants; values between its nodes are named after the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelFileError
from onnxprune.model.constants import constant_tensor, drop_constant
from onnxprune.model.names import name_of
from onnxprune.model.operands import is_read
from onnxprune.model.weights import Weight
from onnxprune.sparse.blocks import bytes_of, smallest_blocks
from onnxprune.sparse.functions import DOMAIN
from onnxprune.sparse.fuse import set_inputs
from onnxprune.sparse.parts import free_name
from onnxprune.sparse.quantized_calls import Call, find_calls
from onnxprune.sparse.quantized_functions import PARTS, QUANTIZED_OPS, QuantizedOp
from onnxprune.sparse.stored import Constants, Stored, kept_of, stored_dense, why_no_gain


def store_quantized(weight: Weight, taken: set[str], opset: int, coded: bool = False) -> Stored:
    """Store a quantized weight sparse where that is smaller; `taken` are the names of the model's values.

    `coded`: as by coding.py where that is smaller still.
    """
    calls = find_calls(weight, opset)
    if isinstance(calls, str):
        return stored_dense(weight, calls)
    op, array = calls[0].op, weight.array()
    blocks, code = smallest_blocks(array, weight.encoding.zero, op.input_axis, coded)
    if (reason := why_no_gain(bytes_of(blocks, code), weight)) is not None:
        return stored_dense(weight, reason)
    constants = Constants(weight, taken)
    if code is not None:
        values, gaps = constants.unpack(code, weight.tensor.dtype)
    else:
        values = constants.add("values", blocks.values, weight.tensor.dtype)
        gaps = constants.add("gaps", blocks.gaps, ir.DataType.UINT8)
    parts = [values, gaps, constants.add("shape", blocks.shape, ir.DataType.INT64)]
    kept = kept_of(weight)
    for call in calls:
        _make_sparse(call, parts)
    drop_constant(weight.value)
    return Stored(weight.name, "ops", constants.nbytes, kept=kept)


def restore_quantized(node: ir.Node, weight: ir.Value, taken: set[str]) -> None:
    """Undo `_make_sparse` for one node, whose weight is `weight` again."""
    op = QUANTIZED_OPS[node.op_type]
    values = dict(zip(op.inputs, node.inputs, strict=True)) | {"W": weight}
    attributes = [attribute for name, attribute in node.attributes.items() if name in op.attributes]
    attributes += [ir.AttrInt64(name, value) for name, value in op.fixed.items()]
    if not op.qdq and not op.scaled:
        set_inputs(node, [values.get(name) for name in op.operands])
        node.domain, node.op_type = op.domain, op.op_type
        node.attributes.clear()
        node.attributes.update({attribute.name: attribute for attribute in attributes})
        return
    assert node.graph is not None
    *before, (last, ends, ending, _) = _around(op, attributes)
    made = []
    for op_type, inputs, name, given in before:
        each = ir.Node("", op_type, [values[part] for part in inputs], given, name=_part_name(node, name))
        each.outputs[0].name = free_name(f"{name_of(node)}/{op_type}", taken)
        values[name or "result"] = each.outputs[0]
        made.append(each)
    next(each for each in made if each.op_type == op.op_type).metadata_props.update(node.metadata_props)
    node.graph.insert_before(node, made)
    set_inputs(node, [values[part] for part in ends])
    node.domain, node.op_type, node.name = "", last, _part_name(node, ending)
    node.attributes.clear()
    node.metadata_props.clear()


def _part_name(node: ir.Node, part: str) -> str:
    """The name of a node that is a part of this one; the part without a name of its own has the node's."""
    return f"{node.name}/{part}" if node.name and part else node.name or ""


def _around(
    op: QuantizedOp, attributes: Sequence[ir.Attr]
) -> Iterable[tuple[str, Sequence[str], str, Sequence[ir.Attr]]]:
    """The nodes of a form of several: operators, the names of their inputs, their own, and their attributes.

    An input is called as the form does, or as the node that makes it: "result" for the one without a name.
    """
    if op.scaled:
        yield op.op_type, op.operands, "", attributes
        yield "Cast", ("result",), "cast", [ir.AttrInt64("to", ir.DataType.FLOAT)]
        yield "Mul", ("x_scale", "w_scale"), "scale", []
        yield "Mul", ("cast", "scale"), "product", []
        if op.has_bias:
            yield "Add", ("product", "B"), "add", []
        return
    axis = [ir.AttrInt64("axis", op.out_axis)]
    yield "DequantizeLinear", ("x", "x_scale", "x_zero_point"), "x", []
    yield "DequantizeLinear", ("W", "w_scale", "w_zero_point"), "w", axis
    if op.has_bias:
        yield "DequantizeLinear", ("B", "B_scale"), "b", [ir.AttrInt64("axis", 0)]
    yield op.op_type, ("x", "w", *["b"] * op.has_bias), "", attributes
    yield "QuantizeLinear", ("result", "y_scale", "y_zero_point"), "y", []


def zero_point_of(node: ir.Node) -> np.ndarray:
    """The zero points of a sparse node's weight, to be broadcast to it.

    Raises:
        ModelFileError: they are not constant, or several where there must be one.
    """
    op = QUANTIZED_OPS[node.op_type]
    if len(node.inputs) != len(op.inputs) or any(value is None for value in node.inputs):
        raise ModelFileError(
            f"{node.op_type} node {name_of(node)!r} lacks inputs of its operator: write the model again with onnxprune"
        )
    tensor = constant_tensor(node.inputs[op.inputs.index("w_zero_point")])
    if tensor is None:
        raise ModelFileError(
            f"the zero point of {node.op_type} node {name_of(node)!r} is not constant: "
            "write the model again with onnxprune"
        )
    zeros = tensor.numpy().reshape(-1)
    if zeros.size == 0 or (op.one_zero_point and (zeros != zeros[0]).any()):
        raise ModelFileError(
            f"the outputs of {node.op_type} node {name_of(node)!r} have different zero points: "
            "write the model again with onnxprune"
        )
    if op.one_zero_point or zeros.size == 1:
        return zeros[0]
    return zeros.reshape(-1, 1) if op.input_axis else zeros


def _make_sparse(call: Call, parts: Sequence[ir.Value]) -> None:
    """Make the last node of a call the sparse one: it is the one whose output stays."""
    node, last = call.node, call.last
    operands = dict(call.operands) | dict(zip(PARTS, parts, strict=True))
    attributes = {
        name: attribute for name, attribute in node.attributes.items() if name in call.op.attributes
    }
    set_inputs(last, [operands[name] for name in call.op.inputs])
    last.attributes.clear()
    last.attributes.update(attributes)
    last.domain, last.op_type, last.name = DOMAIN, call.op.name, node.name
    last.doc_string = node.doc_string
    if last is node:
        return
    last.metadata_props.clear()
    last.metadata_props.update(node.metadata_props)
    for each in call.inner:
        if is_read(each.outputs[0]):
            continue
        assert each.graph is not None
        zeros = each.inputs[2:]
        each.graph.remove(each, safe=True)
        for value in zeros:
            _drop_unread(value)


def _drop_unread(value: ir.Value | None) -> None:
    """Remove a constant that nothing reads any more: the zero point of a bias."""
    if constant_tensor(value) is None or value is None or value.uses():
        return
    if not value.is_graph_output() and not value.is_graph_input():
        drop_constant(value)

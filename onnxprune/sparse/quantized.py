"""QLinearConv | QLinearMatMul | QGemm, or Conv | MatMul | Gemm in QDQ form -> onnxprune::SparseQ..., and back.

In QDQ form the node with the weight, the DequantizeLinear nodes before it and the QuantizeLinear node behind it become
one: what onnxruntime makes of them as well. Nothing else may read what lies between them.

The DequantizeLinear of x may have other readers, and stays for them. What is put back has the same operators and
constants; values between its nodes are named after the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelFileError
from onnxprune.model.constants import constant_tensor, drop_constant
from onnxprune.model.reading import Use
from onnxprune.model.slots import domain_of
from onnxprune.model.weights import Weight
from onnxprune.sparse.blocks import smallest_blocks
from onnxprune.sparse.functions import DOMAIN
from onnxprune.sparse.fuse import set_inputs
from onnxprune.sparse.parts import free_name
from onnxprune.sparse.quantized_functions import INPUTS, QUANTIZED_OPS, QuantizedOp
from onnxprune.sparse.stored import Constants, Stored, kept_of, stored_dense, why_no_gain

BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
# Of the relative difference between a bias' scale and that of x times that of the weight.
SCALE_ROUNDING = 1e-4


@dataclass(frozen=True)
class _Call:
    """A use of a weight that has a sparse form: its operands by the names of the form's inputs, and its nodes."""

    op: QuantizedOp
    operands: Mapping[str, ir.Value]
    node: ir.Node
    last: ir.Node
    """The node whose output stays."""


def store_quantized(weight: Weight, taken: set[str], opset: int) -> Stored:
    """Store a quantized weight sparse where that is smaller; `taken` are the names of the model's values."""
    calls = _calls(weight, opset)
    if isinstance(calls, str):
        return stored_dense(weight, calls)
    op, array = calls[0].op, weight.array()
    blocks = smallest_blocks(array, weight.encoding.zero, op.input_axis)
    if (reason := why_no_gain(blocks.nbytes, weight)) is not None:
        return stored_dense(weight, reason)
    constants = Constants(weight, taken)
    parts = [
        constants.add("values", blocks.values, weight.tensor.dtype),
        constants.add("gaps", blocks.gaps, ir.DataType.UINT8),
        constants.add("shape", blocks.shape, ir.DataType.INT64),
    ]
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
    if not op.qdq:
        order = ["x", "x_scale", "x_zero_point", "W", "w_scale", "w_zero_point", "y_scale", "y_zero_point"]
        if op.op_type == "QGemm":
            order.insert(6, "B")
        elif op.has_bias:
            order.append("B")
        set_inputs(node, [values.get(name) for name in order])
        node.domain, node.op_type = op.domain, op.op_type
        node.attributes.clear()
        node.attributes.update({attribute.name: attribute for attribute in attributes})
        return
    assert node.graph is not None
    made: list[ir.Node] = []

    def make(op_type: str, inputs: Iterable[str], name: str, attributes: Sequence[ir.Attr] = ()) -> ir.Value:
        each = ir.Node("", op_type, [values[part] for part in inputs], list(attributes), name=name)
        each.outputs[0].name = free_name(f"{node.name or node.outputs[0].name}/{op_type}", taken)
        made.append(each)
        return each.outputs[0]

    name = node.name or ""
    axis = ir.AttrInt64("axis", op.out_axis)
    values["xf"] = make("DequantizeLinear", ("x", "x_scale", "x_zero_point"), f"{name}/x" if name else "")
    values["wf"] = make(
        "DequantizeLinear", ("W", "w_scale", "w_zero_point"), f"{name}/w" if name else "", [axis]
    )
    operands = ["xf", "wf"]
    if op.has_bias:
        zero_axis = ir.AttrInt64("axis", 0)
        values["bf"] = make("DequantizeLinear", ("B", "B_scale"), f"{name}/b" if name else "", [zero_axis])
        operands.append("bf")
    values["yf"] = make(op.op_type, operands, name, attributes)
    made[-1].metadata_props.update(node.metadata_props)
    node.graph.insert_before(node, made)
    set_inputs(node, [values[part] for part in ("yf", "y_scale", "y_zero_point")])
    node.domain, node.op_type, node.name = "", "QuantizeLinear", f"{name}/y" if name else ""
    node.attributes.clear()
    node.metadata_props.clear()


def zero_point_of(node: ir.Node) -> np.ndarray:
    """The zero points of a sparse node's weight, to be broadcast to it.

    Raises:
        ModelFileError: they are not constant, or several where there must be one.
    """
    op = QUANTIZED_OPS[node.op_type]
    if len(node.inputs) != len(op.inputs) or any(value is None for value in node.inputs):
        raise ModelFileError(
            f"{node.op_type} node {node.name!r} lacks inputs of its operator: write the model again with onnxprune"
        )
    tensor = constant_tensor(node.inputs[INPUTS.index("w_zero_point")])
    if tensor is None:
        raise ModelFileError(
            f"the zero point of {node.op_type} node {node.name!r} is not constant: "
            "write the model again with onnxprune"
        )
    zeros = tensor.numpy().reshape(-1)
    if zeros.size == 0 or (op.one_zero_point and (zeros != zeros[0]).any()):
        raise ModelFileError(
            f"the outputs of {node.op_type} node {node.name!r} have different zero points: "
            "write the model again with onnxprune"
        )
    if op.one_zero_point or zeros.size == 1:
        return zeros[0]
    return zeros.reshape(-1, 1) if op.input_axis else zeros


def _calls(weight: Weight, opset: int) -> list[_Call] | str:
    """Every use of a weight, or why it must stay as it is."""
    if weight.tensor.dtype not in BYTES:
        return f"it is {weight.tensor.dtype.name.lower()}, which sparse nodes do not compute in"
    if weight.value.is_graph_output():
        return "it is an output of its graph"
    calls: list[_Call] = []
    expected: set[ir.Node] = set()
    for use in weight.uses:
        direct = use.node.inputs[use.index] is weight.value
        call = _call(use) if direct else _qdq_call(use, weight.value)
        if isinstance(call, str):
            return call
        problem = _why_not(call, weight, opset)
        if problem is not None:
            return problem
        calls.append(call)
        expected |= {call.node, *_between(weight.value, call)}
    for value in (weight.value, *(output for call in calls for output in _dequantized(weight.value, call))):
        for node, _ in value.uses():
            if node not in expected:
                return f"{node.op_type} node {node.name!r} reads it too"
    if len({call.op.input_axis for call in calls}) > 1 or len({call.node for call in calls}) < len(calls):
        return "its nodes read it in different ways"
    return calls


def _between(weight: ir.Value, call: _Call) -> list[ir.Node]:
    """The node between a weight and the one that multiplies by it, if there is one."""
    return [node for node, _ in weight.uses() if call.op.qdq and node.outputs[0] is call.node.inputs[1]]


def _dequantized(weight: ir.Value, call: _Call) -> list[ir.Value]:
    return [node.outputs[0] for node in _between(weight, call)]


def _call(use: Use) -> _Call | str:
    """A use by an operator of integers."""
    node = use.node
    no_form = f"{node.op_type} has no sparse form"
    if use.index != 3:
        return no_form
    inputs = [*node.inputs, *[None] * (9 - len(node.inputs))]
    names = ["x", "x_scale", "x_zero_point", "W", "w_scale", "w_zero_point", "y_scale", "y_zero_point", "B"]
    if node.op_type == "QGemm":
        names = [*names[:6], "B", "y_scale", "y_zero_point"]
    operands = {
        name: value for name, value in zip(names, inputs, strict=True) if value is not None and name != "W"
    }
    op = _form(node, "B" in operands, False)
    return no_form if op is None else _Call(op, operands, node, node)


def _qdq_call(use: Use, weight: ir.Value) -> _Call | str:
    """A use by an operator of floats, between DequantizeLinear and QuantizeLinear."""
    node = use.node
    no_form = f"{node.op_type} node {node.name!r} is not between DequantizeLinear and QuantizeLinear alone"
    makers = [None if value is None else value.producer() for value in node.inputs]
    readers = [reader for reader, _ in node.outputs[0].uses()]
    if use.index != 1 or node.outputs[0].is_graph_output() or len(readers) != 1:
        return no_form
    around = [*makers[:3], readers[0]]
    wanted = [*["DequantizeLinear"] * len(makers[:3]), "QuantizeLinear"]
    if any(
        each is None or domain_of(each) or each.op_type != op_type
        for each, op_type in zip(around, wanted, strict=True)
    ):
        return no_form
    if around[1] is None or around[1].inputs[0] is not weight:
        return no_form
    operands: dict[str, ir.Value] = {}
    for letter, each in zip(["x", "w", *["B"] * (len(makers) > 2), "y"], around, strict=True):
        assert each is not None
        if letter != "B" and len(each.inputs) < 3:
            return f"{each.op_type} node {each.name!r} has no zero point"
        for name, value in zip(("", "_scale", "_zero_point"), each.inputs, strict=False):
            if value is not None:
                operands[f"{letter}{name}"] = value
    bias_zero = constant_tensor(operands.pop("B_zero_point", None))
    if bias_zero is not None and bias_zero.numpy().any():
        return f"the bias of node {node.name!r} has a zero point"
    for name in ("w", "y"):
        del operands[name]
    op = _form(node, len(makers) > 2, True)
    return no_form if op is None else _Call(op, operands, node, readers[0])


def _form(node: ir.Node, has_bias: bool, qdq: bool) -> QuantizedOp | None:
    """The sparse form of a node, if its attributes have one."""
    transposed = node.attributes.get_int("transB", 0)
    plain = (
        node.attributes.get_float("alpha", 1.0) == 1
        and (node.attributes.get_float("beta", 1.0) == 1)
        and not node.attributes.get_int("transA", 0)
    )
    found = (
        op
        for op in QUANTIZED_OPS.values()
        if (op.domain, op.op_type, op.qdq) == (domain_of(node), node.op_type, qdq)
        and (op.has_bias, bool(op.fixed)) == (has_bias, bool(transposed))
    )
    return next(found, None) if plain else None


def _why_not(call: _Call, weight: Weight, opset: int) -> str | None:
    """Why a use has no sparse form, or None."""
    node, op = call.node, call.op
    if opset < op.min_opset:
        return f"sparse nodes in QDQ form need opset {op.min_opset}, the model's is {opset}"
    if missing := [name for name in op.inputs if name not in (*call.operands, "values", "gaps", "shape")]:
        return f"{node.op_type} node {node.name!r} has no {missing[0]}"
    types = []
    for end in ("x", "w", "y"):
        scale, zero = (constant_tensor(call.operands[f"{end}_{name}"]) for name in ("scale", "zero_point"))
        if scale is None or zero is None:
            return f"scales or zero points of {node.op_type} node {node.name!r} are computed in the graph"
        if scale.dtype != ir.DataType.FLOAT:
            return f"scales of {node.op_type} node {node.name!r} are {scale.dtype.name.lower()}"
        if end != "w" and (scale.size, zero.size) != (1, 1):
            return f"{node.op_type} node {node.name!r} has several scales for its {end}"
        types.append(zero.dtype)
    x_type, w_type, y_type = types
    if x_type not in BYTES or y_type != x_type or w_type != weight.tensor.dtype:
        return f"the types around {node.op_type} node {node.name!r} have no sparse form"
    if x_type == ir.DataType.INT8 and w_type != x_type:
        return f"{node.op_type} node {node.name!r} multiplies int8 by uint8, which onnxruntime does not"
    if len(weight.shape) < 2 or (len(weight.shape) > 2) != op.one_zero_point:
        return f"its shape {list(weight.shape)} has no sparse form"
    outputs = weight.shape[op.out_axis]
    for name in ("w_scale", "w_zero_point"):
        parameter = constant_tensor(call.operands[name])
        assert parameter is not None
        if parameter.size not in (1, outputs) or len(parameter.shape) > 1:
            return f"scales or zero points of {node.op_type} node {node.name!r} are not along its outputs"
    zeros = constant_tensor(call.operands["w_zero_point"])
    assert zeros is not None
    if op.one_zero_point and (zeros.numpy() != zeros.numpy().reshape(-1)[0]).any():
        return "its outputs have different zero points"
    if op.has_bias:
        return _why_not_bias(call, outputs)
    return None


def _why_not_bias(call: _Call, outputs: int) -> str | None:
    """Why a bias has no sparse form, or None."""
    problem = f"the bias of node {call.node.name!r} has no sparse form"
    bias = constant_tensor(call.operands["B"])
    if bias is None or bias.dtype != ir.DataType.INT32 or tuple(bias.shape) != (outputs,):
        return problem
    if call.op.qdq:
        scale, x_scale, w_scale = (
            constant_tensor(call.operands[f"{name}_scale"]) for name in ("B", "x", "w")
        )
        if scale is None or x_scale is None or w_scale is None:
            return problem
        expected = x_scale.numpy() * w_scale.numpy()
        found = scale.numpy()
        if found.size not in (1, outputs) or not np.allclose(found, expected, rtol=SCALE_ROUNDING, atol=0):
            return problem
    return None


def _make_sparse(call: _Call, parts: Sequence[ir.Value]) -> None:
    """Make the last node of a call the sparse one: it is the one whose output stays."""
    node, last = call.node, call.last
    operands = dict(call.operands) | dict(zip(("values", "gaps", "shape"), parts, strict=True))
    before = [value.producer() for value in node.inputs if value is not None] if call.op.qdq else []
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
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    for maker in _unread(before):
        assert maker.graph is not None
        zeros = maker.inputs[2:]
        maker.graph.remove(maker, safe=True)
        for value in zeros:
            _drop_unread(value)


def _unread(nodes: Iterable[ir.Node | None]) -> Iterator[ir.Node]:
    for node in dict.fromkeys(nodes):
        if node is not None and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            yield node


def _drop_unread(value: ir.Value | None) -> None:
    """Remove a constant that nothing reads any more: the zero point of a bias."""
    if constant_tensor(value) is None or value is None or value.uses():
        return
    if not value.is_graph_output() and not value.is_graph_input():
        drop_constant(value)

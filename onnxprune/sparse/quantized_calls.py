"""Which uses of a quantized weight have a sparse form, with which operands, and why the others have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.names import name_of
from onnxprune.model.reading import Use
from onnxprune.model.slots import domain_of
from onnxprune.model.weights import Weight
from onnxprune.sparse.quantized_functions import OPERANDS, PARTS, QUANTIZED_OPS, QuantizedOp

BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
# Of the relative difference between a bias' scale and that of x times that of the weight.
SCALE_ROUNDING = 1e-4


@dataclass(frozen=True)
class Call:
    """A use of a weight that has a sparse form: its operands by the names of the form's inputs, and its nodes."""

    op: QuantizedOp
    operands: Mapping[str, ir.Value]
    node: ir.Node
    last: ir.Node
    """The node whose output stays."""
    inner: tuple[ir.Node, ...] = ()
    """The others, each before those whose outputs it reads; some may have other readers, and stay for them."""

    def between(self, weight: ir.Value) -> list[ir.Node]:
        """The node between the weight and the one that multiplies by it, if there is one."""
        return [node for node, _ in weight.uses() if self.op.qdq and node.outputs[0] is self.node.inputs[1]]


def find_calls(weight: Weight, opset: int) -> list[Call] | str:
    """Every use of a weight, or why it must stay as it is."""
    if weight.tensor.dtype not in BYTES:
        return f"it is {weight.tensor.dtype.name.lower()}, which sparse nodes do not compute in"
    if weight.value.is_graph_output():
        return "it is an output of its graph"
    calls: list[Call] = []
    expected: set[ir.Node] = set()
    values = [weight.value]
    for use in weight.uses:
        direct = use.node.inputs[use.index] is weight.value
        call = _call(use) if direct else _qdq_call(use, weight.value)
        if isinstance(call, str):
            return call
        problem = _why_not(call, weight, opset)
        if problem is not None:
            return problem
        calls.append(call)
        between = call.between(weight.value)
        expected |= {call.node, *between}
        values += [node.outputs[0] for node in between]
    for value in values:
        for node, _ in value.uses():
            if node not in expected:
                return f"{node.op_type} node {name_of(node)!r} reads it too"
    if len({call.op.input_axis for call in calls}) > 1 or len({call.node for call in calls}) < len(calls):
        return "its nodes read it in different ways"
    return calls


def _call(use: Use) -> Call | str:
    """A use by an operator of integers."""
    node = use.node
    no_form = f"{node.op_type} has no sparse form"
    names = OPERANDS.get(node.op_type, ())
    if len(names) <= use.index or names[use.index] != "W" or len(node.inputs) > len(names):
        return no_form
    operands = {
        name: value
        for name, value in zip(names, node.inputs, strict=False)
        if value is not None and name != "W"
    }
    op = _form(node, "B" in operands)
    if op is None:
        return no_form
    return _scaled(node, operands) or Call(op, operands, node, node)


def _scaled(node: ir.Node, operands: Mapping[str, ir.Value]) -> Call | None:
    """An operator that makes sums, together with what multiplies them by the scales of x and W and adds a bias.

    As dynamic quantization writes it: Add (Mul (Cast (sums), Mul (x_scale, w_scale)), B).
    """
    cast = _only_reader(node, "Cast")
    product = None if cast is None else _only_reader(cast, "Mul")
    if cast is None or product is None or cast.attributes.get_int("to", 0) != ir.DataType.FLOAT:
        return None
    other = next((value for value in product.inputs if value is not cast.outputs[0]), None)
    scale = None if other is None else other.producer()
    if scale is None or scale.op_type != "Mul" or domain_of(scale) or scale.graph is not node.graph:
        return None
    x_scale, w_scale = scale.inputs
    if constant_tensor(w_scale) is None:
        x_scale, w_scale = w_scale, x_scale
    if x_scale is None or w_scale is None or constant_tensor(w_scale) is None or not _is_single(x_scale):
        return None
    op = _form(node, False, scaled=True)
    if op is None or (op.one_zero_point and not _is_single(w_scale)):
        return None
    found = {**operands, "x_scale": x_scale, "w_scale": w_scale}
    add = _only_reader(product, "Add")
    bias = None if add is None else next((v for v in add.inputs if v is not product.outputs[0]), None)
    with_bias = _form(node, True, scaled=True)
    if add is None or bias is None or with_bias is None or not _is_bias(bias, node):
        return Call(op, found, node, product, (cast, node, scale))
    return Call(with_bias, {**found, "B": bias}, node, add, (product, cast, node, scale))


def _only_reader(node: ir.Node, op_type: str) -> ir.Node | None:
    """The only reader of a node's output, where it is of this type and in the same graph."""
    readers = [reader for reader, _ in node.outputs[0].uses()]
    if len(readers) != 1 or node.outputs[0].is_graph_output():
        return None
    reader = readers[0]
    return (
        reader if reader.op_type == op_type and not domain_of(reader) and reader.graph is node.graph else None
    )


def _is_single(value: ir.Value) -> bool:
    """Whether a scale or zero point is one number: a constant, or what DynamicQuantizeLinear makes."""
    tensor, maker = constant_tensor(value), value.producer()
    if tensor is not None:
        return tensor.size == 1 and len(tensor.shape) <= 1
    return maker is not None and maker.op_type == "DynamicQuantizeLinear" and not domain_of(maker)


def _is_bias(bias: ir.Value, node: ir.Node) -> bool:
    """Whether what is added to a product is a vector of floats, one for each output."""
    tensor, weight = constant_tensor(bias), constant_tensor(node.inputs[1])
    return (
        tensor is not None
        and weight is not None
        and tensor.dtype == ir.DataType.FLOAT
        and tuple(tensor.shape) == (tuple(weight.shape)[-1],)
    )


def _qdq_call(use: Use, weight: ir.Value) -> Call | str:
    """A use by an operator of floats, between DequantizeLinear and QuantizeLinear."""
    node = use.node
    no_form = (
        f"{node.op_type} node {name_of(node)!r} is not between DequantizeLinear and QuantizeLinear alone"
    )
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
            return f"{each.op_type} node {name_of(each)!r} has no zero point"
        for name, value in zip(("", "_scale", "_zero_point"), each.inputs, strict=False):
            if value is not None:
                operands[f"{letter}{name}"] = value
    bias_zero = constant_tensor(operands.pop("B_zero_point", None))
    if bias_zero is not None and bias_zero.numpy().any():
        return f"the bias of node {name_of(node)!r} has a zero point"
    for name in ("w", "y"):
        del operands[name]
    op = _form(node, len(makers) > 2, qdq=True)
    if op is None:
        return no_form
    return Call(
        op, operands, node, readers[0], (node, *dict.fromkeys(each for each in makers if each is not None))
    )


def _form(node: ir.Node, has_bias: bool, qdq: bool = False, scaled: bool = False) -> QuantizedOp | None:
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
        if (op.domain, op.op_type, op.qdq, op.scaled) == (domain_of(node), node.op_type, qdq, scaled)
        and (op.has_bias, bool(op.fixed)) == (has_bias, bool(transposed))
    )
    return next(found, None) if plain else None


def _why_not(call: Call, weight: Weight, opset: int) -> str | None:
    """Why a use has no sparse form, or None."""
    node, op = call.node, call.op
    if opset < op.min_opset:
        return f"sparse nodes in QDQ form need opset {op.min_opset}, the model's is {opset}"
    if missing := [name for name in op.inputs if name not in (*call.operands, *PARTS)]:
        return f"{node.op_type} node {name_of(node)!r} has no {missing[0]}"
    types = {}
    for end in ("x", "w", "y"):
        for name in (f"{end}_scale", f"{end}_zero_point"):
            if (problem := _why_not_number(call, name)) is not None:
                return problem
        if f"{end}_zero_point" in op.inputs:
            types[end] = _type_of_zero_point(call.operands[f"{end}_zero_point"])
    x_type, w_type = types.get("x", ir.DataType.UINT8), types["w"]
    if x_type not in BYTES or types.get("y", x_type) != x_type or w_type != weight.tensor.dtype:
        return f"the types around {node.op_type} node {name_of(node)!r} have no sparse form"
    if x_type == ir.DataType.INT8 and w_type != x_type:
        return f"{node.op_type} node {name_of(node)!r} multiplies int8 by uint8, which onnxruntime does not"
    if len(weight.shape) < 2 or (len(weight.shape) > 2) != op.one_zero_point:
        return f"its shape {list(weight.shape)} has no sparse form"
    outputs = weight.shape[op.out_axis]
    for name in {"w_scale", "w_zero_point"} & {*op.inputs}:
        parameter = constant_tensor(call.operands[name])
        assert parameter is not None
        if parameter.size not in (1, outputs) or len(parameter.shape) > 1:
            return f"scales or zero points of {node.op_type} node {name_of(node)!r} are not along its outputs"
    zeros = constant_tensor(call.operands["w_zero_point"])
    assert zeros is not None
    if op.one_zero_point and (zeros.numpy() != zeros.numpy().reshape(-1)[0]).any():
        return "its outputs have different zero points"
    if op.has_bias:
        return _why_not_bias(call, outputs)
    return None


def _why_not_number(call: Call, name: str) -> str | None:
    """Why a scale or zero point has no sparse form, or None: those of dynamic quantization may be computed."""
    node, value = call.node, call.operands.get(name)
    if value is None or name not in call.op.inputs:
        return None
    tensor = constant_tensor(value)
    if tensor is None and not (call.op.dynamic and name.startswith("x") and _is_single(value)):
        return f"scales or zero points of {node.op_type} node {name_of(node)!r} are computed in the graph"
    if tensor is not None and name.endswith("scale") and tensor.dtype != ir.DataType.FLOAT:
        return f"scales of {node.op_type} node {name_of(node)!r} are {tensor.dtype.name.lower()}"
    if tensor is not None and not name.startswith("w") and tensor.size != 1:
        return f"{node.op_type} node {name_of(node)!r} has several scales for its {name[0]}"
    return None


def _type_of_zero_point(value: ir.Value) -> ir.DataType:
    """Its type; that of DynamicQuantizeLinear is uint8."""
    tensor = constant_tensor(value)
    return ir.DataType.UINT8 if tensor is None else tensor.dtype


def _why_not_bias(call: Call, outputs: int) -> str | None:
    """Why a bias has no sparse form, or None."""
    problem = f"the bias of node {name_of(call.node)!r} has no sparse form"
    bias = constant_tensor(call.operands["B"])
    dtype = ir.DataType.FLOAT if call.op.dynamic else ir.DataType.INT32
    if bias is None or bias.dtype != dtype or tuple(bias.shape) != (outputs,):
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

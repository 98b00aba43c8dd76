"""Inlining of functions: model-local ones, and ONNX's definitions of operators without an entry in the table."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, ShapeInferencePass

from onnxprune.model.excerpt import bodies
from onnxprune.training.module.ops import find_lowering

# Operators whose translation needs the rank or type of an operand, which the file may lack.
_ASK_FOR_TYPES = frozenset({"Shape", "QuantizeLinear"})

# A domain whose operators ONNX does not know.
_UNKNOWN = "onnxprune.unknown"


def inline_functions(model: ir.Model) -> None:
    """Inline, in place, model-local functions and the definitions of operators without an entry in the table.

    Raises:
        ValueError: a function imports another opset than the model.
    """
    InlinePass()(model)
    while undefined := _undefined(model):
        infer(model)
        functions = [_definition(node, model) for node in undefined]
        if not any(functions):
            break
        for node, function in zip(undefined, functions, strict=True):
            if function is not None:
                node.overload = f"definition_{len(model.functions)}"
                function.overload = node.overload
                model.functions[function.identifier()] = function
        InlinePass()(model)
    if any(node.op_type in _ASK_FOR_TYPES for node in model.graph.all_nodes()):
        infer(model)


def infer(model: ir.Model) -> None:
    """Infer shapes and types, in place; not of maps, which onnx_ir has no type for."""
    makers = [node for node in model.graph.all_nodes() if node.op_type == "ZipMap"]
    domains = [node.domain for node in makers]
    for node in makers:
        node.domain = _UNKNOWN
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    for node, domain in zip(makers, domains, strict=True):
        node.domain = domain


def _undefined(model: ir.Model) -> list[ir.Node]:
    """The nodes without an entry in the table that ONNX defines by other operators."""
    undefined = []
    for node in model.graph.all_nodes():
        opset = model.opset_imports.get(node.domain)
        if opset is None or find_lowering(node.domain, node.op_type, opset) is not None:
            continue
        schema = _schema(node, opset)
        if (
            schema is not None
            and not bodies(node)
            and (schema.has_function or schema.has_context_dependent_function)
        ):
            undefined.append(node)
    return undefined


def _schema(node: ir.Node, opset: int) -> Any:
    """The onnx.defs.OpSchema of an operator; None if ONNX does not define it."""
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None


def _definition(node: ir.Node, model: ir.Model) -> ir.Function | None:
    """The operator as a function in the opset of the model; None if the types of its inputs are not known."""
    opset = model.opset_imports[node.domain]
    schema = _schema(node, opset)
    assert schema is not None
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.type:
            node.attributes[name] = ir.serde.deserialize_attribute(attribute.default_value)
    if schema.has_function:
        proto = schema.function_body
    else:
        types = [_type_proto(value) for value in node.inputs]
        if None in types:
            return None
        serialized = [
            ir.to_proto(node).SerializeToString(),
            [kind.SerializeToString() for kind in types if kind],
        ]
        proto = onnx.FunctionProto.FromString(
            schema.get_context_dependent_function_with_opset_version(opset, *serialized)
        )
    # An optional output that the node does not name has no producer in the definition.
    del proto.output[len(node.outputs) :]
    produced = {name for inner in proto.node for name in inner.output}
    for index, name in enumerate(proto.output):
        if name not in produced:
            proto.output[index] = proto.output[0]
    function = ir.serde.deserialize_function(proto)
    # The schema gives the definition for this opset, even if the function names an older one.
    function.opset_imports.update(
        {domain: model.opset_imports.get(domain, 1) for domain in function.opset_imports}
    )
    return function


def _type_proto(value: ir.Value | None) -> onnx.TypeProto | None:
    """The type of an operand, empty for an absent one; None where it is not known."""
    if value is None:
        return onnx.TypeProto()
    if value.dtype is None:
        return None
    shape = None if value.shape is None else [size if isinstance(size, int) else None for size in value.shape]
    return onnx.helper.make_tensor_type_proto(value.dtype, shape)

"""Models of opsets that cannot hold sparse nodes or integers, brought to opset 13 by the ONNX version converter.

The converter is given the graph without its large weights, and what it loses on the way (metadata, names of
nodes and values that it replaces) is put back from the model it was given.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx.version_converter
import onnx_ir as ir

from onnxprune.sparse.functions import MIN_OPSET, standard_opset

TARGET_OPSET = 13
# What the converter's adapters read (axes, shapes, scales) is smaller; larger tensors would only be copied.
CONVERTED_TENSOR_BYTES = 1024


def raise_opset(
    model: ir.Model, same: Callable[[ir.Model, ir.Model], bool | None], needed: int = MIN_OPSET
) -> tuple[ir.Model, str | None]:
    """The model at opset 13 where it is below `needed`, and None; or the model as it came, and the reason.

    `model` is not changed; the new one shares its tensors. `same` tells whether two models compute the same,
    the old one and the new one, or None if that cannot be known.
    """
    opset = standard_opset(model)
    if opset >= needed:
        return model, None
    if model.functions:
        return model, f"the model's opset is {opset}, and ONNX converts no model that has functions"
    try:
        converted = converted_to(model, TARGET_OPSET)
    # The converter reports by many classes, RuntimeError and IndexError among them.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return model, f"the model's opset is {opset}, and ONNX cannot convert it to {TARGET_OPSET}: {reason}"
    if not (computes_the_same := same(model, converted)):
        outcome = "was not run" if computes_the_same is None else "computes something else"
        return model, f"the model's opset is {opset}, and converted to {TARGET_OPSET} it {outcome}"
    return converted, None


def converted_to(model: ir.Model, opset: int) -> ir.Model:
    """The model at another opset, which shares its tensors; raises whatever the converter raises."""
    skeleton = model.clone()
    for value in list(skeleton.graph.initializers.values()):
        assert value.const_value is not None and value.name is not None
        if value.const_value.nbytes > CONVERTED_TENSOR_BYTES:
            value.type = ir.TensorType(value.const_value.dtype)
            value.shape = ir.Shape(value.const_value.shape.numpy())
            del skeleton.graph.initializers[value.name]
            if not value.is_graph_input():
                skeleton.graph.inputs.append(value)
    ir.external_data.load_to_model(skeleton)
    proto = onnx.version_converter.convert_version(ir.to_proto(skeleton), opset)
    converted = ir.from_proto(proto)
    _give_weights(model.graph, converted.graph)
    _mend(model.graph, converted.graph)
    return converted


def _give_weights(original: ir.Graph, converted: ir.Graph) -> None:
    """Make the inputs that stand for weights initializers again."""
    inputs = {value.name: value for value in converted.inputs}
    for name, weight in original.initializers.items():
        if name not in converted.initializers and name in inputs:
            inputs[name].const_value = weight.const_value
            converted.register_initializer(inputs[name])
            if not weight.is_graph_input():
                converted.inputs.remove(inputs[name])


def _mend(original: ir.Graph, converted: ir.Graph) -> None:
    """Put back what the converter lost: names of nodes and values, doc strings, metadata, declared types.

    A node is the one that it was when it has the output that it had, unless the converter left the name to
    another one. Its inputs are then known by position: one whose name is gone was renamed, gets its name back,
    and by it the node that makes it is known in turn.
    """
    old_makers = {output.name: node for node in original for output in node.outputs}
    old_names = {node.name: node for node in original if node.name}
    kept_names = {node.name for node in converted if node.name}
    names = set(_values(converted))
    for node in reversed(converted):
        old_node = old_makers.get(node.outputs[0].name)
        if old_node is None or (old_node.name != node.name and old_node.name in kept_names):
            old_node = old_names.get(node.name or "")
        if old_node is None:
            continue
        node.name = old_node.name
        node.doc_string = old_node.doc_string
        node.metadata_props.update(old_node.metadata_props)
        for old, new in zip(old_node.inputs, node.inputs, strict=False):
            if old is None or new is None or old.name in names:
                continue
            if old.name in old_makers and new.name in names and new.name not in old_makers:
                names.add(old.name)
                new.name = old.name
        for name, attribute in old_node.attributes.items():
            if attribute.type == ir.AttributeType.GRAPH and name in node.attributes:
                _mend(attribute.as_graph(), node.attributes[name].as_graph())
    converted.doc_string = original.doc_string
    converted.metadata_props.update(original.metadata_props)
    converted.meta.update(original.meta)
    old_values = _values(original)
    for key, value in _values(converted).items():
        if key in old_values:
            value.type = old_values[key].type
            value.shape = old_values[key].shape
            value.doc_string = old_values[key].doc_string
            value.metadata_props.update(old_values[key].metadata_props)


def _values(graph: ir.Graph) -> dict[str | None, ir.Value]:
    """Every value that the graph itself defines, by name."""
    outputs = (output for node in graph for output in node.outputs)
    return {value.name: value for value in (*graph.inputs, *graph.initializers.values(), *outputs)}

"""The trainable constants of a graph: those that the table of operators declares, and biases of Add nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.operands import operand
from onnxprune.model.reading import FLOAT_TYPES, QUANTIZING, dequantized
from onnxprune.model.slots import embedding_slots
from onnxprune.training.module.ops import Lowering, find_lowering

_SCALING = frozenset({"Add", "Sub", "Mul", "Div"})


def trained_constants(model: ir.Model, embeddings: Collection[str] = ()) -> list[ir.Value]:
    """The trainable constants, each once, in the order of the nodes that use them; `embeddings` by name, as well.

    These are operands that the table declares (`trains`), seen through operators that only move or quantize elements,
    and constants of bias Adds: with more than one element, added to the result of a node with a trained weight, which
    may be moved or scaled by constants. So constants that normalize the model's input, and masks that are added to
    attention scores, are not trained. `embeddings` may name scales of QuantizeLinear too.
    """
    trained: dict[ir.Value, None] = {}
    for node in model.graph.all_nodes():
        lowering = _lowering(node, model)
        for index in lowering.trains if lowering else ():
            source = _source(operand(node, index), model)
            if source is not None and _is_trainable(source):
                trained[source] = None
        for slot in embedding_slots(node):
            source = _source(operand(node, slot.input_index), model)
            if source is not None and source.name in embeddings and _is_trainable(source):
                trained[source] = None
        scale = operand(node, 1) if node.op_type == "QuantizeLinear" else None
        if scale is not None and scale.name in embeddings and _is_float(scale):
            trained[scale] = None
        bias = _bias(node, model, trained)
        if bias is not None:
            trained[bias] = None
    return list(trained)


def unique_names(values: Iterable[ir.Value]) -> list[str]:
    """The names of values, with #2, #3 where subgraphs repeat one, as in `find_weights`."""
    counts: dict[str, int] = {}
    names = []
    for value in values:
        name = value.name or ""
        counts[name] = counts.get(name, 0) + 1
        names.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return names


def _lowering(node: ir.Node, model: ir.Model) -> Lowering | None:
    return find_lowering(node.domain, node.op_type, model.opset_imports.get(node.domain, 1))


def _is_trainable(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.size > 0 and (_is_float(value) or dequantized(value) is not None)


def _is_float(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.dtype in FLOAT_TYPES


def _source(value: ir.Value | None, model: ir.Model) -> ir.Value | None:
    """The value before any operators that move or quantize its elements."""
    while value is not None and (node := value.producer()) is not None:
        lowering = _lowering(node, model)
        if lowering is None or not (lowering.moves or node.op_type in QUANTIZING):
            break
        value = node.inputs[0]
    return value


def _bias(node: ir.Node, model: ir.Model, trained: dict[ir.Value, None]) -> ir.Value | None:
    if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
        return None
    for index, value in enumerate(node.inputs):
        source = _source(value, model)
        if source is not None and _is_float(source):
            tensor = constant_tensor(source)
            assert tensor is not None
            if tensor.size > 1 and _comes_from_weight(node.inputs[1 - index], model, trained):
                return source
    return None


def _comes_from_weight(value: ir.Value | None, model: ir.Model, trained: dict[ir.Value, None]) -> bool:
    while (value := _source(value, model)) is not None and (node := value.producer()) is not None:
        lowering = _lowering(node, model)
        if lowering is not None and any(
            _source(operand(node, index), model) in trained for index in lowering.trains
        ):
            return True
        if node.op_type not in _SCALING:
            return False
        varying = [operand for operand in node.inputs if constant_tensor(_source(operand, model)) is None]
        if len(varying) != 1:
            return False
        value = varying[0]
    return False

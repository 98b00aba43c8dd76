"""Integers that a graph computes from constants: sizes, axes and pads that exporters write as a chain of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxprune.model.constants import constant_tensor
from onnxprune.model.listed import FIRST_IR_WITH_DEFAULTS

# Integers that are sizes or positions; narrower ones are quantized weights.
INTEGERS = (np.dtype(np.int64), np.dtype(np.int32), np.dtype(bool))
# The most elements that are folded; more are tables.
LARGEST = 4096
REMEMBERED = 4096
_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)

Inputs = tuple[tuple[str, tuple[int, ...], bytes] | None, ...]


def folded_integers(model: ir.Model, graphs: Sequence[ir.Graph]) -> dict[ir.Value, np.ndarray]:
    """What nodes of these graphs compute from constants alone, if it is int64, int32 or bool."""
    found: dict[ir.Value, np.ndarray] = {}
    for graph in graphs:
        for node in graph:
            array = _folded(node, found, model)
            if array is not None:
                found[node.outputs[0]] = array
    return found


def _folded(node: ir.Node, found: dict[ir.Value, np.ndarray], model: ir.Model) -> np.ndarray | None:
    if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1 or not node.inputs:
        return None
    if constant_tensor(node.outputs[0]) is not None:
        return None
    if any(attribute.type in _SUBGRAPHS or attribute.is_ref() for attribute in node.attributes.values()):
        return None
    inputs: list[tuple[str, tuple[int, ...], bytes] | None] = []
    for value in node.inputs:
        if value is None:
            inputs.append(None)
            continue
        array = found.get(value)
        if array is None:
            tensor = constant_tensor(value)
            if tensor is None or tensor.size > LARGEST or _overridable(value, model):
                return None
            if tensor.dtype.numpy() not in INTEGERS and node.op_type != "Cast":
                return None
            array = tensor.numpy()
        inputs.append((array.dtype.str, array.shape, array.tobytes()))
    proto = ir.to_proto(node)
    del proto.input[:], proto.output[:]
    proto.name = ""
    opset = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1))
    return _evaluated(proto.SerializeToString(deterministic=True), tuple(inputs), opset)


def _overridable(value: ir.Value, model: ir.Model) -> bool:
    """Whether a caller may feed a constant; before IR version 4, all initializers were graph inputs."""
    return value.is_graph_input() and model.ir_version >= FIRST_IR_WITH_DEFAULTS


@lru_cache(maxsize=REMEMBERED)
def _evaluated(node: bytes, inputs: Inputs, opset: int) -> np.ndarray | None:
    """The output of a serialized node without names, by ONNX's reference; None unless it is integers."""
    proto = onnx.NodeProto.FromString(node)
    feeds = {}
    for index, given in enumerate(inputs):
        proto.input.append("" if given is None else f"input{index}")
        if given is not None:
            dtype, shape, content = given
            feeds[f"input{index}"] = np.frombuffer(content, dtype).reshape(shape)
    proto.output.append("output")
    infos = [onnx.ValueInfoProto(name=name) for name in feeds]
    graph = onnx.helper.make_graph([proto], "node", infos, [onnx.ValueInfoProto(name="output")])
    try:
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        (output,) = ReferenceEvaluator(model).run(None, feeds)
    # An operator that the reference lacks, or a node that is never run and invalid; there is no common class of errors.
    except Exception:
        return None
    array = np.asarray(output)
    return array if array.dtype in INTEGERS and array.size <= LARGEST else None

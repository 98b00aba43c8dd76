"""What each channel of a model's values is on a batch, as further outputs of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxprune.quantization.equalization import JOINED

Measure = Literal["mean", "largest"]
# From there on ReduceMean and ReduceMax take their axes as an input.
AXES_AS_INPUT = 18
# Where a quantizer moves the name of an output of the graph.
MOVED = "_QuantizeLinear_Input"


class Probe(NamedTuple):
    """A value by its name, its number of axes, and the one of its channels."""

    name: str
    rank: int
    axis: int


def probed(model: ir.Model, probes: Sequence[Probe], measure: Measure) -> ir.Model:
    """A copy of a model with an output (channels,) for each probe, in order, and no others.

    `measure`: the mean over all other axes, or the largest magnitude.

    Raises:
        KeyError: the model has no value of that name.
    """
    copy = model.clone()
    graph = copy.graph
    values = {output.name: output for node in graph for output in node.outputs}
    graph.outputs.clear()
    for number, probe in enumerate(probes):
        value = values[probe.name]
        axes = [axis for axis in range(probe.rank) if axis != probe.axis]
        if measure == "largest":
            value = _add(graph, ir.Node("", "Abs", [value]))
        reduction = "ReduceMean" if measure == "mean" else "ReduceMax"
        if copy.opset_imports.get("", 1) >= AXES_AS_INPUT:
            constant = ir.Value(name=f"probe{number}.axes", const_value=ir.Tensor(np.array(axes, np.int64)))
            graph.register_initializer(constant)
            node = ir.Node("", reduction, [value, constant], [ir.AttrInt64("keepdims", 0)])
        else:
            node = ir.Node("", reduction, [value], [ir.AttrInt64s("axes", axes), ir.AttrInt64("keepdims", 0)])
        output = _add(graph, node)
        output.name, output.type, output.shape = (
            f"probe{number}",
            ir.TensorType(ir.DataType.FLOAT),
            ir.Shape([None]),
        )
        graph.outputs.append(output)
    return copy


def place(value: ir.Value, made: ir.Model) -> str | None:
    """The name that a layer's output, before it is rounded, has in the model that a quantizer made of its model.

    It is that of the activation that was taken into the layer, if there is one; None where it is not found.
    """
    names = {output.name for node in made.graph for output in node.outputs}
    readers = [node.outputs[0] for node, _ in value.uses() if node.op_type in JOINED]
    wanted = [f"{each.name}{moved}" for each in (value, *readers) for moved in (MOVED, "")]
    return next((name for name in wanted if name in names), None)


def _add(graph: ir.Graph, node: ir.Node) -> ir.Value:
    graph.append(node)
    return node.outputs[0]

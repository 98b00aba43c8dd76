"""A segment of a model: consecutive nodes as a model of their own, which onnxruntime can run."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.errors import DataError, first_line
from onnxprune.evaluation.sessions import make_session, restarted
from onnxprune.model.constants import constant_tensor
from onnxprune.model.excerpt import bodies, reads, typed_input
from onnxprune.model.slots import domain_of

Arrays = dict[ir.Value, Any]
"""Graph values for one batch: arrays; of an output also a list or dict of them, for a sequence or a map."""
Tensors = Mapping[ir.Value, ir.TensorProtocol]
"""Constants that replace those of the graph."""

# Operators that only read a result off logits.
_READ_OFF = frozenset({("", "Softmax"), ("", "LogSoftmax"), ("", "ArgMax"), ("ai.onnx.ml", "ZipMap")})


class Segment:
    """The nodes from index `start` to before `end` of a model's graph, which compute the values in `wanted`.

    `instead`: constants with other values; `threads` as in `make_session`. A segment is thread-safe.
    """

    def __init__(
        self,
        model: ir.Model,
        start: int,
        end: int,
        wanted: Collection[ir.Value],
        *,
        instead: Tensors | None = None,
        threads: int = 0,
    ):
        # Constants become initializers of the segment, also those of Constant nodes.
        nodes = [node for node in list(model.graph)[start:end] if constant_tensor(node.outputs[0]) is None]
        made = {value: None for node in nodes for value in node.outputs}
        read = {value: None for node in nodes for value in reads(node) if value not in made}
        self.gives = [value for value in made if value in wanted]
        self.reads = [value for value in read if constant_tensor(value) is None]
        constants = [value for value in read if constant_tensor(value) is not None]
        self._model, self._nodes = model, nodes
        self._instead = instead or {}
        self._tensors = {value: self._instead.get(value) or constant_tensor(value) for value in constants}
        self._threads = threads
        self._session: ort.InferenceSession | None = None
        self._making = threading.Lock()

    def run(self, arrays: Mapping[ir.Value, Any]) -> Arrays:
        """The wanted values that the segment computes, for one batch.

        Raises:
            DataError: onnxruntime cannot run the segment.
        """
        if not self.gives:
            return {}
        try:
            with self._making:
                if self._session is None:
                    self._session = make_session(self.proto(arrays), "a part of the model", self._threads)
            feeds = {value.name: arrays[value] for value in self.reads}
            outputs = restarted(self._session).run([value.name for value in self.gives], feeds)
        except Exception as error:
            raise DataError(
                f"onnxruntime cannot run the model layer by layer: {first_line(error)}; check the data, or use "
                "--criterion magnitude and no --allocation sensitivity"
            ) from error
        return dict(zip(self.gives, outputs, strict=True))

    def proto(self, arrays: Mapping[ir.Value, Any]) -> onnx.ModelProto:
        """The segment as a model that takes values like these, in the order of `reads`, and gives those of `gives`."""
        graph = onnx.GraphProto(name="segment")
        graph.input.extend(typed_input(value.name or "", arrays[value]) for value in self.reads)
        graph.output.extend(
            onnx.helper.make_empty_tensor_value_info(value.name or "") for value in self.gives
        )
        for value, tensor in self._tensors.items():
            assert tensor is not None
            graph.initializer.append(_proto(tensor, value.name or ""))
        graph.node.extend(ir.to_proto(node) for node in self._nodes)
        for node, written in zip(self._nodes, graph.node, strict=True):
            _replace_within(node, written, self._instead)
        opsets = [onnx.helper.make_opsetid(*item) for item in self._model.opset_imports.items()]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=self._model.ir_version)
        model.functions.extend(ir.to_proto(function) for function in self._model.functions.values())
        return model


def _proto(tensor: ir.TensorProtocol, name: str) -> onnx.TensorProto:
    """A tensor with its values: a file's weights are mapped, and a model in memory cannot refer to a file."""
    # Strings, such as the names of classes, lie in no file, and have no bytes that ir.Tensor could count.
    strings = tensor.dtype == ir.DataType.STRING
    made = ir.to_proto(tensor if strings else ir.Tensor(tensor.numpy(), dtype=tensor.dtype))
    made.name = name
    return made


def _replace_within(node: ir.Node, written: onnx.NodeProto, instead: Tensors) -> None:
    """Write other values of constants of a node's subgraphs; `written`: the node as it is."""
    graphs = bodies(node)
    for attribute in written.attribute if instead else ():
        body = graphs.get(attribute.name)
        if body is None:
            continue
        for initializer in attribute.g.initializer:
            if (tensor := instead.get(body.initializers[initializer.name])) is not None:
                initializer.CopyFrom(_proto(tensor, initializer.name))
        for inner, its in zip(body, attribute.g.node, strict=True):
            if inner.op_type == "Constant" and (tensor := instead.get(inner.outputs[0])) is not None:
                its.attribute[0].t.CopyFrom(_proto(tensor, ""))
            _replace_within(inner, its, instead)


def compared(model: ir.Model) -> list[ir.Value]:
    """For each output of a model, the value that is compared, each once: the output, or the logits behind it.

    Probabilities near 0 and 1, and class numbers all the more, hide deviations until the arg-max changes.
    """
    values = dict.fromkeys(map(compared_value, model.graph.outputs))
    return [value for value in values if constant_tensor(value) is None]


def compared_value(output: ir.Value) -> ir.Value:
    """The value that is compared for an output."""
    value = output
    while (maker := value.producer()) is not None and (domain_of(maker), maker.op_type) in _READ_OFF:
        before = maker.inputs[0]
        if before is None:
            break
        value = before
    return value


def last_reads(model: ir.Model) -> dict[ir.Value, int]:
    """For every computed value and input of the main graph, the index of the last node that reads it.

    For graph outputs and the values of `compared`, it is the number of nodes.
    """
    nodes = list(model.graph)
    last = {value: index for index, node in enumerate(nodes) for value in reads(node)}
    last |= dict.fromkeys((*model.graph.outputs, *compared(model)), len(nodes))
    return {value: index for value, index in last.items() if constant_tensor(value) is None}

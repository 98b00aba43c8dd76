"""Nodes that onnxruntime runs inside of a torch graph: those without an entry in the table that no weight leads to.

So the front of a model needs no gradient: text to numbers, scaling, spectra. What torch has no type for, such as texts,
passes through the graph as onnxruntime gave it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn

from onnxprune.model.constants import constant_tensor
from onnxprune.model.excerpt import reads, typed_input
from onnxprune.training.module.ops.types import TORCH_DTYPES

# onnxruntime's log severity: errors come back as exceptions.
LOG_FATAL_ONLY = 4


class Outside(nn.Module):
    """A node of a model; `forward` takes the values in `reads`, and returns the outputs that have a name."""

    def __init__(self, node: ir.Node, model: ir.Model):
        super().__init__()
        read = dict.fromkeys(reads(node))
        self.reads = [value for value in read if constant_tensor(value) is None]
        self._constants = [
            _initializer(value, tensor).SerializeToString()
            for value in read
            if (tensor := constant_tensor(value)) is not None
        ]
        self._names = [value.name or "" for value in self.reads]
        self._types = [value.dtype for value in self.reads]
        self._node = ir.to_proto(node).SerializeToString()
        self._opsets = dict(model.graph.opset_imports)
        self._ir_version = model.ir_version
        self._session: ort.InferenceSession | None = None
        # Results go where the module is.
        self.register_buffer("place", torch.empty(0), persistent=False)

    def __getstate__(self) -> dict[str, Any]:
        # Neither sessions nor values of a graph can be copied, and the values are for building alone.
        return {**self.__dict__, "_session": None, "reads": []}

    def forward(self, *operands: Any) -> tuple[Any, ...]:
        feeds = {
            name: _given(operand, kind)
            for name, kind, operand in zip(self._names, self._types, operands, strict=True)
        }
        if self._session is None:
            self._session = self._make(feeds)
        results = self._session.run(None, feeds)
        device = self.get_buffer("place").device
        return tuple(_taken(result, device) for result in results)

    def _make(self, feeds: dict[str, Any]) -> ort.InferenceSession:
        node = onnx.NodeProto.FromString(self._node)
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        inputs = [typed_input(name, array) for name, array in feeds.items()]
        constants = [onnx.TensorProto.FromString(constant) for constant in self._constants]
        graph = onnx.helper.make_graph([node], "outside", inputs, outputs, constants)
        opsets = [onnx.helper.make_opsetid(*item) for item in self._opsets.items()]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=self._ir_version)
        options = ort.SessionOptions()
        options.log_severity_level = LOG_FATAL_ONLY
        options.intra_op_num_threads = 1
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _initializer(value: ir.Value, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    # A file's constants are mapped, and a model in memory cannot refer to a file.
    mapped = isinstance(tensor, ir.ExternalTensor)
    proto = ir.to_proto(ir.Tensor(tensor.numpy(), dtype=tensor.dtype) if mapped else tensor)
    proto.name = value.name or ""
    return proto


def _given(operand: Any, kind: ir.DataType | None) -> Any:
    if not isinstance(operand, torch.Tensor):
        return operand
    array = operand.detach().cpu().numpy()
    return array if kind is None else array.astype(kind.numpy(), copy=False)


def _taken(result: Any, device: torch.device) -> Any:
    if not isinstance(result, np.ndarray) or result.dtype.kind in "OSU":
        return result
    kind = TORCH_DTYPES[ir.DataType.from_numpy(result.dtype)]
    array = result.astype(np.dtype(str(kind).removeprefix("torch.")), copy=False)
    return torch.from_numpy(np.array(array)).to(device)

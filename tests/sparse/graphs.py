"""Small models written as ONNX text, and what onnxruntime makes of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from onnxprune.model.weights import find_weights
from onnxprune.sparse.decoders import DECODERS
from onnxprune.sparse.functions import DOMAIN
from onnxprune.sparse.rewrite import to_ops
from onnxprune.sparse.stored import Stored


def sparse_array(*shape: int, density: float = 0.1, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(dtype)


def dense_array(*shape: int, dtype: type = np.float32, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def parse(text: str, *, opset: int = 13, ir_version: int = 8, **initializers: np.ndarray) -> onnx.ModelProto:
    """The model of a graph in ONNX text, with these initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> {text}')
    proto.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in initializers.items()
    )
    return proto


def sparse(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Stored]]:
    """The model with all weights stored sparse where that is smaller, and the outcomes."""
    model = ir.from_proto(proto)
    stored = to_ops(model, find_weights(model).prunable)
    return ir.to_proto(model), stored


def run(proto: onnx.ModelProto, *, optimized: bool = True, **inputs: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def op_types(graph: onnx.GraphProto) -> list[str]:
    """The operators of a graph and its subgraphs, in order."""
    found = []
    for node in graph.node:
        found.append(node.op_type)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += op_types(attribute.g)
    return found


def sparse_types(graph):
    """The operators of the nodes of domain onnxprune that compute with a weight."""
    return [node.op_type for node in graph.node if node.domain == DOMAIN and node.op_type not in DECODERS]

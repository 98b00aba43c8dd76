"""Small ONNX models that several tests need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A checked model of these nodes, weights as initializers."""
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    """A float32 graph input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def mlp(
    inputs: int = 8, hidden: int = 16, outputs: int = 4, seed: int = 0, opset: int = OPSET
) -> onnx.ModelProto:
    """x [N, inputs] -> Gemm fc1 -> Relu -> Gemm fc2 -> y [N, outputs], weights (out, in)."""
    return model_of(
        [
            helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["h"], "fc1", transB=1),
            helper.make_node("Relu", ["h"], ["r"], "relu"),
            helper.make_node("Gemm", ["r", "fc2.weight", "fc2.bias"], ["y"], "fc2", transB=1),
        ],
        [floats("x", "N", inputs)],
        [floats("y", "N", outputs)],
        {
            "fc1.weight": normal(hidden, inputs, seed=seed),
            "fc1.bias": normal(hidden, seed=seed + 1),
            "fc2.weight": normal(outputs, hidden, seed=seed + 2),
            "fc2.bias": normal(outputs, seed=seed + 3),
        },
        opset,
    )


def cnn(seed: int = 0) -> onnx.ModelProto:
    """x [N, 1, 8, 8] -> Conv -> Relu -> MaxPool -> Conv -> Flatten -> Gemm -> y [N, 4]."""
    return model_of(
        [
            helper.make_node(
                "Conv", ["x", "conv1.weight", "conv1.bias"], ["a"], "conv1", kernel_shape=[3, 3]
            ),
            helper.make_node("Relu", ["a"], ["b"], "relu1"),
            helper.make_node("MaxPool", ["b"], ["c"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node(
                "Conv", ["c", "conv2.weight"], ["d"], "conv2", kernel_shape=[3, 3], pads=[1, 1, 1, 1]
            ),
            helper.make_node("Flatten", ["d"], ["e"], "flatten"),
            helper.make_node("Gemm", ["e", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
        ],
        [floats("x", "N", 1, 8, 8)],
        [floats("y", "N", 4)],
        {
            "conv1.weight": normal(8, 1, 3, 3, seed=seed),
            "conv1.bias": normal(8, seed=seed + 1),
            "conv2.weight": normal(16, 8, 3, 3, seed=seed + 2),
            "fc.weight": normal(4, 144, seed=seed + 3),
            "fc.bias": normal(4, seed=seed + 4),
        },
    )


def open_conv(batch: int | str = "N") -> onnx.ModelProto:
    """A Conv 3 -> 8 whose images may be of any size."""
    return model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [floats("x", batch, 3, "H", "W")],
        [floats("y", batch, 8, "h", "w")],
        {"w": normal(8, 3, 3, 3)},
    )


def initializer(model: onnx.ModelProto, name: str) -> np.ndarray:
    """The values of an initializer."""
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name)

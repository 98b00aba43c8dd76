"""A graph that grows node by node, at random."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGEST = 64  # channels and space


class Graph:
    """A graph that grows from `last`, whose shape without the batch is `shape`; `kept` are values to join again."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.shape: tuple[int, ...] = (self.pick(1, 2, 3, 4), self.pick(4, 6), self.pick(4, 6))
        self.batch = self.pick("N", 1, 2)
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, (self.batch, *self.shape))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.last = "x"
        self.kept: list[tuple[str, tuple[int, ...]]] = []

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def floats(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(-1, 1, shape).astype(np.float32))

    def positive(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.5, 1.5, shape).astype(np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values))

    def weight(self, *shape: int, out: int = 0, into: int = 1) -> str:
        """Of a size that keeps activations of the order of one; in some, whole rows and columns are zero."""
        array = self.rng.standard_normal(shape).astype(np.float32)
        array /= np.float32(np.sqrt(max(np.prod(shape) / shape[out], 1)))
        if self.rng.random() < 0.3:
            moved = np.moveaxis(array, (out, into), (0, 1))
            moved[self.rng.random(shape[out]) < 0.3] = 0
            moved[:, self.rng.random(shape[into]) < 0.3] = 0
        return self.constant(array)

    def node(self, op_type: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes) -> list[str]:
        number = len(self.nodes)
        names = [f"v{number}_{index}" for index in range(outputs)]
        self.nodes.append(
            helper.make_node(op_type, list(inputs), names, f"n{number}", domain=domain, **attributes)
        )
        self.last = names[0]
        return names

    def model(self) -> onnx.ModelProto:
        output = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, (self.batch, *self.shape))
        graph = helper.make_graph(self.nodes, "random", [self.input], [output], self.weights)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, ir_version=8, opset_imports=opsets)

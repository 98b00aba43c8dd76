"""A transformer encoder with the shapes of MiniLM (Wang et al. 2020), without its embeddings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
LAYERS, HIDDEN, HEADS, INNER = 6, 384, 12, 1536
SEQUENCE = 128


def encoder() -> onnx.ModelProto:
    """x (1, 128, 384) -> y of the same shape; six layers, 10.6 million random weights."""
    made = _Encoder()
    last = "x"
    for layer in range(LAYERS):
        last = made.layer(f"layer{layer}", last)
    return made.model(last)


class _Encoder:
    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def layer(self, name: str, x: str) -> str:
        """Attention and two products, each with a residual and a normalization behind it."""
        query, key, value = (
            self._heads(self._product(f"{name}.{part}", x, HIDDEN, HIDDEN), key=part == "key")
            for part in ("query", "key", "value")
        )
        scores = self._binary("Mul", self._add("MatMul", query, key), 1 / math.sqrt(HIDDEN / HEADS))
        context = self._add("MatMul", self._add("Softmax", scores, axis=-1), value)
        joined = self._shaped(self._add("Transpose", context, perm=[0, 2, 1, 3]), (1, SEQUENCE, HIDDEN))
        mixed = self._normal(name, self._add("Add", self._product(f"{name}.out", joined, HIDDEN, HIDDEN), x))
        wide = self._gelu(self._product(f"{name}.wide", mixed, HIDDEN, INNER))
        narrow = self._product(f"{name}.narrow", wide, INNER, HIDDEN)
        return self._normal(f"{name}.end", self._add("Add", narrow, mixed))

    def model(self, last: str) -> onnx.ModelProto:
        shape = (1, SEQUENCE, HIDDEN)
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def _product(self, name: str, x: str, inputs: int, outputs: int) -> str:
        weight = self._rng.standard_normal((inputs, outputs), dtype=np.float32) / np.float32(
            math.sqrt(inputs)
        )
        bias = self._rng.standard_normal(outputs, dtype=np.float32) / 10
        product = self._add("MatMul", x, self._constant(f"{name}.weight", weight))
        return self._add("Add", product, self._constant(f"{name}.bias", bias))

    def _heads(self, x: str, key: bool) -> str:
        split = self._shaped(x, (1, SEQUENCE, HEADS, HIDDEN // HEADS))
        return self._add("Transpose", split, perm=[0, 2, 3, 1] if key else [0, 2, 1, 3])

    def _normal(self, name: str, x: str) -> str:
        scale, bias = np.ones(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)
        parts = (self._constant(f"{name}.scale", scale), self._constant(f"{name}.shift", bias))
        return self._add("LayerNormalization", x, *parts, axis=-1)

    def _gelu(self, x: str) -> str:
        bent = self._binary("Add", self._add("Erf", self._binary("Div", x, math.sqrt(2))), 1.0)
        return self._binary("Mul", self._add("Mul", x, bent), 0.5)

    def _shaped(self, x: str, shape: tuple[int, ...]) -> str:
        return self._add("Reshape", x, self._constant(f"shape{len(self._nodes)}", np.array(shape, np.int64)))

    def _binary(self, op_type: str, x: str, number: float) -> str:
        return self._add(
            op_type, x, self._constant(f"number{len(self._nodes)}", np.array(number, np.float32))
        )

    def _constant(self, name: str, array: np.ndarray) -> str:
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op_type.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [f"{name}.out"], name, **attributes))
        return f"{name}.out"

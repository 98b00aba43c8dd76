"""What onnxruntime's optimizer fuses, against onnxruntime's own kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import helper

from onnxprune.model.shapes.inference import infer_shapes
from onnxprune.training.module.graph import UnsupportedOperatorError, to_torch
from tests.builders import normal

BATCH, LENGTH, HIDDEN, HEADS = 2, 5, 8, 2


def model_with(
    op_type: str, inputs: dict[str, np.ndarray], constants: dict[str, np.ndarray | None], **attributes: Any
) -> onnx.ModelProto:
    """One com.microsoft node; None stands for an absent operand."""
    operands = [*inputs, *(name if array is not None else "" for name, array in constants.items())]
    # This one has to have a second output.
    outputs = ["y", "lengths"] if op_type == "EmbedLayerNormalization" else ["y"]
    node = helper.make_node(op_type, operands, outputs, "node", domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        "one_node",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in inputs.items()
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items() if array is not None],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def sequence(seed: int = 0) -> np.ndarray:
    return normal(BATCH, LENGTH, HIDDEN, seed=seed)


PACKED = {"w": normal(HIDDEN, 3 * HIDDEN), "b": normal(3 * HIDDEN, seed=1)}
KEYS_SEEN = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
PROJECTED = {"query": sequence(), "key": sequence(1), "value": sequence(2)}

CASES: dict[str, tuple[str, dict[str, np.ndarray], dict[str, np.ndarray | None], dict[str, Any]]] = {
    "gelu": ("Gelu", {"x": sequence()}, {}, {}),
    "gelu of a biased operand": ("BiasGelu", {"x": sequence()}, {"b": normal(HIDDEN)}, {}),
    "fast gelu": ("FastGelu", {"x": sequence()}, {"b": normal(HIDDEN)}, {}),
    "quick gelu": ("QuickGelu", {"x": sequence()}, {}, {"alpha": 1.5}),
    "convolution with an activation": (
        "FusedConv",
        {"x": normal(1, 2, 6, 6)},
        {"w": normal(3, 2, 3, 3), "b": normal(3)},
        {"activation": "LeakyRelu", "activation_params": [0.1], "pads": [1, 1, 1, 1]},
    ),
    "gemm with an activation": (
        "FusedGemm",
        {"x": normal(3, 4)},
        {"w": normal(5, 4), "b": normal(5)},
        {"activation": "Relu", "transB": 1},
    ),
    "scaled product": (
        "FusedMatMul",
        {"a": normal(2, 4, 3)},
        {"b": normal(2, 4, 5)},
        {"alpha": 0.5, "transA": 1},
    ),
    "layer norm of a sum": (
        "SkipLayerNormalization",
        {"x": sequence(), "skip": sequence(1)},
        {"g": normal(HIDDEN), "b": normal(HIDDEN, seed=1), "bias": normal(HIDDEN, seed=2)},
        {"epsilon": 1e-4},
    ),
    # onnxruntime's default epsilon is 1e-12, where small numbers tell.
    "layer norm of a small sum": (
        "SkipLayerNormalization",
        {"x": 1e-4 * sequence(), "skip": 1e-4 * sequence(1)},
        {"g": normal(HIDDEN), "b": normal(HIDDEN, seed=1)},
        {},
    ),
    "rms norm of a small sum": (
        "SkipSimplifiedLayerNormalization",
        {"x": 1e-4 * sequence(), "skip": 1e-4 * sequence(1)},
        {"g": normal(HIDDEN)},
        {},
    ),
    "embedding with its norm": (
        "EmbedLayerNormalization",
        {"ids": np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]], np.int32), "segments": 1 - KEYS_SEEN},
        {"words": normal(9, HIDDEN), "places": normal(6, HIDDEN, seed=1), "kinds": normal(2, HIDDEN, seed=2),
         "g": normal(HIDDEN, seed=3), "b": normal(HIDDEN, seed=4), "m": KEYS_SEEN},
        {"epsilon": 1e-5},
    ),
    "embedding without segments at given places": (
        "EmbedLayerNormalization",
        {"ids": np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]], np.int32)},
        {"segments": None, "words": normal(9, HIDDEN), "places": normal(6, HIDDEN, seed=1), "kinds": None,
         "g": normal(HIDDEN, seed=3), "b": normal(HIDDEN, seed=4), "m": None,
         "at": np.array([[5, 4, 3, 2, 1], [0, 1, 2, 3, 4]], np.int32)},
        {},
    ),
    "attention": ("Attention", {"x": sequence()}, PACKED, {"num_heads": HEADS}),
    "attention to some keys": ("Attention", {"x": sequence()}, {**PACKED, "m": KEYS_SEEN}, {"num_heads": HEADS}),
    "attention to the first keys": (
        "Attention",
        {"x": sequence()},
        {**PACKED, "m": np.array([3, 5], np.int32)},
        {"num_heads": HEADS},
    ),
    "attention to the keys between": (
        "Attention",
        {"x": sequence()},
        {**PACKED, "m": np.array([3, 5, 1, 0], np.int32)},
        {"num_heads": HEADS},
    ),
    "attention to the past": ("Attention", {"x": sequence()}, PACKED, {"num_heads": HEADS, "unidirectional": 1}),
    "attention of projected operands": (
        "MultiHeadAttention",
        PROJECTED,
        {"b": normal(3 * HIDDEN), "m": KEYS_SEEN},
        {"num_heads": HEADS},
    ),
    "scaled attention with a bias": (
        "MultiHeadAttention",
        PROJECTED,
        {"b": None, "m": None, "bias": normal(1, HEADS, LENGTH, LENGTH)},
        {"num_heads": HEADS, "scale": 0.3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_fused_operator_equals_that_of_onnxruntime(name: str) -> None:
    op_type, inputs, constants, attributes = CASES[name]
    model = model_with(op_type, inputs, constants, **attributes)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = to_torch(ir.from_proto(model))(*map(torch.from_numpy, inputs.values()))
    expected = session.run(None, inputs)[0]
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-3, atol=2e-4)
    shapes = {value.name: shape for value, shape in infer_shapes(ir.from_proto(model)).items()}
    assert shapes["y"] == expected.shape


def test_an_embedding_also_gives_the_lengths_and_the_sum_before_its_norm() -> None:
    ids = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]], np.int32)
    model = model_with("EmbedLayerNormalization", {"ids": ids}, CASES["embedding with its norm"][2])
    model.graph.node[0].input.insert(1, "")
    model.graph.node[0].input[4] = ""
    model.graph.node[0].output.append("sum")
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("lengths", "sum"))
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"ids": ids})
    found = to_torch(ir.from_proto(model))(torch.from_numpy(ids))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other, atol=1e-5)


def test_the_packed_projection_of_an_attention_is_trained() -> None:
    model = model_with("Attention", {"x": sequence()}, PACKED, num_heads=HEADS)
    assert [name for name, _ in to_torch(ir.from_proto(model)).named_parameters()] == ["w", "b"]


def test_an_attention_that_reads_the_past_is_refused() -> None:
    past = normal(2, BATCH, HEADS, 3, HIDDEN // HEADS)
    model = model_with("Attention", {"x": sequence()}, {**PACKED, "m": None, "past": past}, num_heads=HEADS)
    with pytest.raises(UnsupportedOperatorError, match="keys and values of the past"):
        to_torch(ir.from_proto(model))

"""Multiply-adds, counted by hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.model.costs import multiply_adds, products, weight_multiply_adds
from onnxprune.model.weights import find_weights
from tests.builders import cnn, mlp
from tests.surgery.oracle import model


def test_convolutions_and_products_count_every_output_element_times_what_it_sums() -> None:
    costs = multiply_adds(ir.from_proto(cnn()), {"x": [2, 1, 8, 8]})
    assert costs == {"conv1": 2 * 8 * 36 * 9, "conv2": 2 * 16 * 9 * 72, "fc": 2 * 4 * 144}


def test_the_batch_that_is_given_counts() -> None:
    costs = multiply_adds(ir.from_proto(mlp()), {"x": [3, 8]})
    assert costs == {"fc1": 3 * 8 * 16, "fc2": 3 * 16 * 4}


def test_a_node_of_open_shape_is_left_out() -> None:
    assert multiply_adds(ir.from_proto(mlp()), {}) == {}


@pytest.mark.parametrize(
    ("graph", "weights", "expected"),
    [
        (
            "(float[7,2,6] x) => (float[7,1,2,5] y) {y = LSTM<hidden_size=5>(x, w, r)}",
            {"w": (1, 20, 6), "r": (1, 20, 5)},
            7 * 2 * 20 * 11,
        ),
        (
            "(float[2,3,4,4] x) => (float[2,5,8,8] y) {y = ConvTranspose<strides=[2,2]>(x, w)}",
            {"w": (3, 5, 2, 2)},
            2 * 3 * 16 * 20,
        ),
        (
            '(float[2,3,4] x) => (float[2,3,5] y) {y = Einsum<equation="btc,cd->btd">(x, w)}',
            {"w": (4, 5)},
            2 * 3 * 4 * 5,
        ),
        (
            "(float[2,3,8] x) => (float[2,3,8] y) {y = com.microsoft.Attention<num_heads=2>(x, w)}",
            {"w": (8, 24)},
            2 * 3 * 8 * 24 + 2 * (2 * 3 * 3 * 8),
        ),
        (
            """(float[2,3,8] x, float[2,2,2,5,4] past) => (float[2,3,8] y, float[2,2,2,8,4] present) {
                y, present = com.microsoft.Attention<num_heads=2>(x, w, , , past)}""",
            {"w": (8, 24)},
            2 * 3 * 8 * 24 + 2 * (2 * 3 * (3 + 5) * 8),
        ),
        (
            """(float[2,3,8] q, float[2,4,8] k, float[2,4,6] v) => (float[2,3,6] y) {
                y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v)}""",
            {},
            2 * 3 * 4 * (8 + 6),
        ),
        (
            """(float[1,3,16] q, float[1,3,8] k, float[1,3,8] v, float[1,2,5,4] a, float[1,2,5,4] b, int32[1] last,
                int32 total) => (float[1,3,16] y, float[1,2,8,4] c, float[1,2,8,4] d) {
                y, c, d = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(
                    q, k, v, a, b, last, total)}""",
            {},
            2 * (3 * (3 + 5) * 16),
        ),
        (
            """(float[2,4,3,8] q, float[2,2,5,8] k, float[2,2,5,6] v) => (float[2,4,3,6] y) {
                y = Attention(q, k, v)}""",
            {},
            2 * 4 * 3 * 5 * (8 + 6),
        ),
    ],
)
def test_other_operators_that_multiply_weights_are_counted(
    graph: str, weights: dict[str, tuple[int, ...]], expected: int
) -> None:
    proto = model(graph, **{name: np.ones(shape, np.float32) for name, shape in weights.items()})
    assert list(multiply_adds(ir.from_proto(proto), {}).values()) == [expected]


def test_weights_of_attention_have_their_projection_and_not_the_products_of_what_it_makes() -> None:
    graph = "(float[2,3,8] x) => (float[2,3,8] y) {y = com.microsoft.Attention<num_heads=2>(x, w)}"
    attention = ir.from_proto(model(graph, w=np.ones((8, 24), np.float32)))
    costs = weight_multiply_adds(find_weights(attention).prunable, products(attention, {}))
    assert costs == {"w": 2 * 3 * 8 * 24}


def test_nodes_of_one_name_are_all_counted() -> None:
    proto = mlp()
    for node in proto.graph.node:
        node.name = "layer"
    layers = ir.from_proto(proto)
    assert multiply_adds(layers, {"x": [3, 8]}) == {"layer": 3 * 8 * 16 + 3 * 16 * 4}
    costs = weight_multiply_adds(find_weights(layers).prunable, products(layers, {"x": [3, 8]}))
    assert sorted(costs.values()) == [3 * 16 * 4, 3 * 8 * 16]

"""Multiply-adds, counted by hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.model.costs import multiply_adds
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
    ],
)
def test_other_operators_that_multiply_weights_are_counted(
    graph: str, weights: dict[str, tuple[int, ...]], expected: int
) -> None:
    proto = model(graph, **{name: np.ones(shape, np.float32) for name, shape in weights.items()})
    assert list(multiply_adds(ir.from_proto(proto), {}).values()) == [expected]

"""What the outputs of a graph end in."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from onnxprune.model.endings import last_operators
from tests.builders import floats, model_of, normal

GEMM = helper.make_node("Gemm", ["x", "w"], ["g"])


@pytest.mark.parametrize(
    ("nodes", "end"),
    [
        ([("Sigmoid", "g")], "Sigmoid"),
        ([("Identity", "g")], "Gemm"),
        ([("Sigmoid", "g"), ("Transpose", "n1"), ("Identity", "n2")], "Sigmoid"),
        ([("Softmax", "g"), ("Flatten", "n1")], "Softmax"),
        ([("Add", "g", "b")], "Gemm"),
        ([("Sigmoid", "g"), ("Add", "n1", "b")], "Add"),
        ([("Add", "b", "g"), ("Transpose", "n1")], "Gemm"),
        ([("Sigmoid", "g"), ("Mul", "n1", "b")], "Mul"),
    ],
)
def test_what_moves_numbers_or_adds_a_bias_is_passed_over(nodes, end):
    made = [helper.make_node(kind, read, [f"n{place}"]) for place, (kind, *read) in enumerate(nodes, 1)]
    made[-1].output[0] = "y"
    weights = {"w": normal(4, 4), "b": np.ones(4, np.float32)}
    proto = model_of([GEMM, *made], [floats("x", 4, 4)], [floats("y", 4, 4), floats("g", 4, 4)], weights)
    assert last_operators(ir.from_proto(proto)) == {"y": end, "g": "Gemm"}

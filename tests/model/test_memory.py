"""The memory of small models, worked out by hand."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from onnxprune.model.memory import constant_bytes, peak_activation_bytes
from tests.builders import floats, mlp, model_of, normal


def peak(model, **shapes):
    return peak_activation_bytes(ir.from_proto(model), shapes)


def test_a_chain_needs_the_input_and_the_output_of_its_widest_node():
    """x [1, 8] -> h [1, 16] -> r [1, 16] -> y [1, 4]: h and r at once."""
    assert peak(mlp(), x=(1, 8)) == 4 * (16 + 16)
    assert peak(mlp(), x=(5, 8)) == 5 * 4 * (16 + 16)
    assert constant_bytes(ir.from_proto(mlp())) == 4 * (8 * 16 + 16 + 16 * 4 + 4)


def test_a_skip_connection_is_needed_until_it_is_added():
    """a is read by both Relus and the Add: a, c and y at once, after a, b and c."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("MatMul", ["a", "up"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    weights = {"up": normal(10, 30), "down": normal(30, 10)}
    model = model_of(nodes, [floats("x", 1, 10)], [floats("y", 1, 10)], weights)
    assert peak(model) == 4 * (10 + 30 + 10)


def test_a_view_takes_nothing_and_keeps_its_source():
    """x [1, 2, 3] -> Relu -> a -> Flatten -> f -> MatMul -> y: f is a."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    model = model_of(nodes, [floats("x", 1, 2, 3)], [floats("y", 1, 20)], {"w": normal(6, 20)})
    assert peak(model) == 4 * (6 + 20)


def test_an_output_stays_to_the_end_and_bytes_are_those_of_the_type():
    """a (float16) is an output of its own: it is still there while b and y are made."""
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["x"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("a", TensorProto.FLOAT16, [1, 10]), floats("y", 1, 10)]
    assert peak(model_of(nodes, [floats("x", 1, 10)], outputs, {})) == 10 * (2 + 4 + 4)


def test_integers_of_com_microsoft_have_the_type_of_their_zero_point():
    zero, scale = np.array(0, np.uint8), np.array(0.1, np.float32)
    constants = {"z": zero, "s": scale, "w": np.ones((8, 4), np.int8), "wz": np.array(0, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node(
            "QGemm", ["q", "s", "z", "w", "s", "wz", "", "s", "z"], ["p"], domain="com.microsoft"
        ),
        helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"]),
    ]
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [floats("x", 1, 8)], [floats("y", 1, 4)], initializers)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    assert peak(helper.make_model(graph, opset_imports=opsets)) == 8 * 4 + 8 * 1


def test_a_size_that_is_not_known_gives_no_number():
    assert peak(mlp()) is None

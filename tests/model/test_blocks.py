"""Y = W X: the maps of a weight, applied to the columns that they read, give what the node gives."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from onnxprune.model.blocks import Blocks
from onnxprune.model.weights import find_weights
from tests.builders import floats, model_of, normal

CASES = {
    "Gemm": ((5, 8), (8, 3), {}),
    "Gemm of transposed operands": ((8, 5), (3, 8), {"transA": 1, "transB": 1}),
    "Gemm with the weight first": ((5, 8), (6, 5), {"first": True}),
    "MatMul": ((2, 5, 8), (8, 3), {}),
    "MatMul with the weight first": ((2, 8, 5), (3, 8), {"first": True}),
    "MatMul of a stack": ((3, 5, 8), (3, 8, 4), {}),
    "MatMul of a stack and samples": ((2, 3, 5, 8), (3, 8, 4), {}),
    "Conv": ((2, 4, 9, 7), (6, 4, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
    "Conv of groups": ((2, 4, 6, 6), (6, 2, 3, 3), {"group": 2}),
    "Conv, depthwise": ((2, 4, 7, 7), (4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "Conv of one axis, padded by name": ((2, 4, 7), (6, 4, 4), {"auto_pad": "SAME_LOWER"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_maps_times_columns_are_the_nodes_outputs(case):
    data, shape, attributes = CASES[case]
    attributes = dict(attributes)
    inputs = ["w", "x"] if attributes.pop("first", False) else ["x", "w"]
    weights = {"w": normal(*shape)}
    node = helper.make_node(case.split()[0].strip(","), inputs, ["y"], "node", **attributes)
    output = floats("y", *[None] * max(len(data), len(shape)))
    model = model_of([node], [floats("x", *data)], [output], weights)
    x = normal(*data, seed=1)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]

    weight = find_weights(ir.from_proto(model)).prunable[0]
    blocks = Blocks.of(weight)
    columns = blocks.columns(x, 10**6, 0)
    products = blocks.split(weight.array()) @ columns
    np.testing.assert_allclose(np.sort(products.ravel()), np.sort(expected.ravel()), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(blocks.join(blocks.split(weight.array())), weight.array())
    np.testing.assert_array_equal(
        blocks.channels_back(blocks.channels_last(blocks.split(weight.array()))), blocks.split(weight.array())
    )
    assert blocks.columns(x, 2, 0).shape[2] == 2
    np.testing.assert_allclose(blocks.square_sums([x, x]), 2 * (columns**2).sum(-1), rtol=1e-4)

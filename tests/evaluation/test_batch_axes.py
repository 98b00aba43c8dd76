"""Batch axes found by running a model: its outputs for several samples are those for each of them."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune.data.specs import InputSpec
from onnxprune.evaluation.batch_axes import find_axes
from onnxprune.evaluation.sessions import make_session
from tests.builders import floats, model_of, normal
from tests.evaluation.test_draws import noisy

node = helper.make_node


def ints(name, *shape, kind=TensorProto.INT64):
    return helper.make_tensor_value_info(name, kind, shape)


def gru(x, *more):
    """x [T, N, 6] -> GRU -> the last states -> Gemm -> y [N, 4], and all states."""
    given = ["x", "w", "r", "b", *(value.name for value in more)]
    return model_of(
        [
            node("GRU", given, ["states", "last"], hidden_size=8),
            node("Squeeze", ["last", "first"], ["s"]),
            node("Gemm", ["s", "fc"], ["y"]),
        ],
        [x, *more],
        [floats("y", "n", 4), floats("states", "t", 1, "n", 8)],
        {
            "w": normal(1, 24, 6),
            "r": normal(1, 24, 8),
            "b": normal(1, 48),
            "first": np.array([0]),
            "fc": normal(8, 4),
        },
    )


def gathered(x, index):
    """Rows of x at an index, through a Gemm."""
    return model_of(
        [node("Gather", ["x", "index"], ["g"]), node("MatMul", ["g", "w"], ["y"])],
        [x, index],
        [floats("y", None, 3)],
        {"w": normal(5, 3)},
    )


def scaled(*dims):
    return model_of(
        [node("MatMul", ["x", "w"], ["m"]), node("Mul", ["m", "scale"], ["y"])],
        [floats("x", *dims), floats("scale", 1)],
        [floats("y", dims[0], 3)],
        {"w": normal(5, 3)},
    )


def graph_layer(nodes):
    return model_of(
        [node("MatMul", ["adj", "x"], ["a"]), node("MatMul", ["a", "w"], ["y"])],
        [floats("x", nodes, 5), floats("adj", nodes, nodes)],
        [floats("y", nodes, 3)],
        {"w": normal(5, 3)},
    )


def picture():
    """An image without a batch axis, which the model adds."""
    nodes = [
        node("Unsqueeze", ["x", "first"], ["u"]),
        node("Conv", ["u", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Squeeze", ["c", "first"], ["y"]),
    ]
    weights = {"first": np.array([0]), "w": normal(2, 3, 3, 3)}
    return model_of(nodes, [floats("x", 3, 5, 5)], [floats("y", 2, 5, 5)], weights)


LENGTHS = ints("lens", "N", kind=TensorProto.INT32)
NAMELESS = ints("lens", None, kind=TensorProto.INT32)
BY_TIME = {"x": 1, "lens": 0}
STATES = {"y": 0, "states": 2}
ALONE = {"x": None, "adj": None}
MODELS = {
    "time-major with lengths": (gru(floats("x", "T", "N", 6), LENGTHS), BY_TIME, None, STATES),
    "nameless dims": (gru(floats("x", None, None, 6), NAMELESS), BY_TIME, None, STATES),
    "time-major without lengths": (gru(floats("x", "s0", "s1", 6)), {"x": 1}, None, STATES),
    "time-major of a fixed size": (gru(floats("x", 9, 4, 6)), {"x": 1}, 4, STATES),
    "indices into another input": (
        gathered(floats("x", "V", 5), ints("index", "K")),
        {"x": None, "index": 0},
        None,
        {"y": 0},
    ),
    "a scale": (scaled("N", 5), {"x": 0, "scale": None}, None, {"y": 0}),
    "adjacency": (graph_layer("V"), ALONE, 1, {}),
    "adjacency of a fixed size": (graph_layer(6), ALONE, 1, {}),
    "a fixed batch": (scaled(4, 5), {"x": 0, "scale": None}, 4, {"y": 0}),
    "an image without a batch": (picture(), {"x": None}, 1, {}),
}


def specs_of(model):
    return [
        InputSpec(
            value.name,
            np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            tuple(dim.dim_value or dim.dim_param or None for dim in value.type.tensor_type.shape.dim),
        )
        for value in model.graph.input
    ]


@pytest.mark.parametrize(("model", "axes", "size", "outputs"), MODELS.values(), ids=MODELS.keys())
def test_the_axes_are_those_along_which_samples_are_independent(model, axes, size, outputs):
    found = find_axes(make_session(model, "a test model"), specs_of(model), {}, {})
    assert dict(found.inputs) == axes and found.size == size
    assert {name: found.outputs.get(name) for name in outputs} == outputs


def test_given_axes_come_first_and_tell_where_labels_lie():
    model = gru(floats("x", "T", "N", 6), LENGTHS)
    asked = {"x": 1, "lens": 0, "labels": 0, "y": 0}
    found = find_axes(make_session(model, "a test model"), specs_of(model), asked, {})
    assert dict(found.inputs) == {"x": 1, "lens": 0}
    assert found.labels["labels"] == 0 and found.labels["labels.states"] == 2
    alone = find_axes(make_session(model, "a test model"), specs_of(model), {"x": None, "lens": None}, {})
    assert alone.whole and alone.size == 1


def test_a_model_that_draws_random_numbers_has_the_axes_that_its_dims_declare():
    model = noisy("RandomNormalLike")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    found = find_axes(make_session(model, "a test model"), specs_of(model), {}, {})
    assert found.inputs == {"x": 0} and found.size == 4

"""A fixed batch size that is freed and put back."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from onnxprune.model.shapes.freeing import FreedBatch, open_target
from tests.builders import floats, model_of, normal

node = helper.make_node


@pytest.mark.parametrize(
    ("target", "dims", "axis", "freed"),
    [
        ([1, -1], [1, 16, 5, 5], 0, [-1, 400]),
        ([1, 400], [1, 16, 5, 5], 0, [-1, 400]),
        ([-1, 400], [1, 16, 5, 5], 0, [-1, 400]),
        ([0, -1], [1, 16, 5, 5], 0, [0, -1]),
        ([7, 8, 64], [7, 1, 512], 1, [7, -1, 64]),
        ([8, 7, 64], [1, 8, 7, 64], 0, [-1, 7, 64]),
        ([7, 512], [1, 7, 512], 0, [-1, 512]),
        ([512, 7], [7, 1, 512], 1, None),
    ],
)
def test_the_target_of_a_reshape_leaves_the_batch_open(target, dims, axis, freed):
    assert open_target(target, dims, axis) == freed


def fixed():
    """x [1, 6, 8] -> heads in the batch axis, as exporters write attention -> flat -> y [1, 3]."""
    return model_of(
        [
            node("Reshape", ["x", "split"], ["s"]),
            node("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3]),
            node("Reshape", ["t", "heads"], ["h"]),
            node("MatMul", ["h", "inner"], ["m"]),
            node("Relu", ["m"], ["r"]),
            node("Reshape", ["r", "flat"], ["f"]),
            node("MatMul", ["f", "outer"], ["y"]),
        ],
        [floats("x", 1, 6, 8)],
        [floats("y", 1, 3)],
        {
            "split": np.array([1, 6, 2, 4]),
            "heads": np.array([2, 6, 4]),
            "flat": np.array([1, 48]),
            "inner": normal(4, 4),
            "outer": normal(48, 3),
        },
    )


def outputs(proto, x):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_a_freed_model_gives_for_many_samples_what_it_gives_one_by_one_and_comes_back_as_it_was():
    proto = onnx.shape_inference.infer_shapes(fixed())
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString()
    freed = FreedBatch(model, {"x": 0}, 1)
    x = normal(5, 6, 8)
    together = outputs(ir.to_proto(model), x)
    np.testing.assert_allclose(together, np.concatenate([outputs(proto, row[None]) for row in x]), rtol=1e-5)
    freed.restore()
    assert ir.to_proto(model).SerializeToString() == before


def test_zeros_as_the_initial_state_are_left_out_for_a_while():
    proto = model_of(
        [node("GRU", ["x", "w", "r", "", "", "h0"], ["", "y"], hidden_size=3)],
        [floats("x", 4, 1, 2)],
        [floats("y", 1, 1, 3)],
        {"w": normal(1, 9, 2), "r": normal(1, 9, 3), "h0": np.zeros((1, 1, 3), np.float32)},
    )
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString()
    freed = FreedBatch(model, {"x": 1}, 1)
    x = normal(4, 5, 2)
    together = outputs(ir.to_proto(model), x)
    for place in range(5):
        np.testing.assert_allclose(together[:, [place]], outputs(proto, x[:, [place]]), rtol=1e-5)
    freed.restore()
    assert ir.to_proto(model).SerializeToString() == before

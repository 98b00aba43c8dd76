"""Padding is cut off in training and calibration, where the model gives the same outputs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxprune
from tests.builders import floats, model_of, normal

LENGTHS = np.random.default_rng(0).integers(2, 9, 64)
MASK = (np.arange(32) < LENGTHS[:, None]).astype(np.int64)
IDS = np.random.default_rng(1).integers(1, 20, (64, 32)) * MASK
FAST = {
    "rate": 0.5,
    "epochs": 2,
    "schedule": "one-shot",
    "allocation": "uniform",
    "learning_rate": 1e-2,
    "format": "dense",
    "batch_size": 32,
    "eval_data": {"ids": IDS, "mask": MASK},
}


def encoder(length: int | str = "T", *, masked: bool = True) -> onnx.ModelProto:
    """The mean of the embeddings where the mask is 1, or of all of them, and two layers."""
    tokens = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["N", length]) for name in ("ids", "mask")
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["each"]),
        helper.make_node("Cast", ["mask"], ["flat"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flat", "last"], ["share"]),
        helper.make_node("Mul", ["each", "share"], ["kept"]),
        helper.make_node("ReduceSum" if masked else "ReduceMean", ["kept"] + ["axis"] * masked, ["total"],
                         keepdims=0, **({} if masked else {"axes": [1]})),
        helper.make_node("Gemm", ["total", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w2"], ["y"]),
    ]  # fmt: skip
    weights = {"table": normal(20, 16), "w1": normal(16, 24, seed=1), "w2": normal(24, 4, seed=2)}
    weights |= {"last": np.array([-1]), "axis": np.array([1])}
    return model_of(nodes, tokens, [floats("y", "N", 4)], weights)


def weights(result):
    return {each.name: onnx.numpy_helper.to_array(each) for each in result.model.graph.initializer}


def notes(result):
    return [note for note in result.report.notes if note.startswith("Padding was cut off")]


def test_a_training_without_padding_ends_at_the_same_weights():
    data = {"ids": IDS, "mask": MASK, "labels": np.arange(64) % 4}
    cut, whole = (onnxprune.prune(encoder(length), data=data, **FAST) for length in ("T", 32))
    (note,) = notes(cut)
    # All but the 6 samples for validation.
    assert "where 'mask' and 'ids' are zero, with equal outputs for 58 samples" in note
    assert not notes(whole)
    for name, array in weights(cut).items():
        np.testing.assert_allclose(array, weights(whole)[name], rtol=1e-3, atol=1e-4)


def test_calibration_sees_no_padding():
    result = onnxprune.prune(encoder(), calibration_data={"ids": IDS, "mask": MASK}, rate=0.5, format="dense")
    assert len(notes(result)) == 1


@pytest.mark.parametrize("kind", ["minds", "labels"])
def test_padding_stays_where_the_outputs_or_the_labels_are_of_it(kind):
    data = {"ids": IDS, "mask": MASK}
    if kind == "minds":
        assert not notes(onnxprune.prune(encoder(masked=False), data=data, **FAST))
        return
    model = encoder()
    model.graph.output.append(helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["N", "T", 16]))
    labels = np.where(MASK > 0, 3, -100)
    assert not notes(onnxprune.prune(model, data=data | {"labels.kept": labels}, **FAST))


def test_padding_stays_where_labels_are_of_every_second_position():
    model = encoder()
    model.graph.node.insert(4, helper.make_node("Transpose", ["kept"], ["turned"], perm=[0, 2, 1]))
    model.graph.node.extend(
        [
            helper.make_node("MaxPool", ["turned"], ["pooled"], kernel_shape=[2], strides=[2]),
            helper.make_node("Transpose", ["pooled"], ["half"], perm=[0, 2, 1]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("half", TensorProto.FLOAT, ["N", "K", 16]))
    data = {"ids": IDS, "mask": MASK, "labels.half": np.where(MASK > 0, 3, -100)[:, ::2]}
    assert not notes(onnxprune.prune(model, data=data, **FAST))


def test_outputs_of_positions_are_distilled_where_positions_are_left():
    model = encoder()
    model.graph.output.append(helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["N", "T", 16]))
    result = onnxprune.prune(model, data={"ids": IDS, "mask": MASK}, **FAST)
    assert len(notes(result)) == 1

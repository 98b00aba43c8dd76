"""Last layers of more classes than there are samples, whose inputs are means over places."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
import onnxprune.job.pruners.calibrated
from tests.builders import floats, initializer, model_of, normal

CLASSES, CHANNELS, SIZE = 80, 32, 6
MEANS = {
    "global pool": [
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
    ],
    "pool": [
        helper.make_node("AveragePool", ["b"], ["c"], kernel_shape=[SIZE, SIZE]),
        helper.make_node("Flatten", ["c"], ["d"]),
    ],
    "mean": [helper.make_node("ReduceMean", ["b"], ["d"], axes=[2, 3], keepdims=0)],
    "channels last": [
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 3, 1]),
        helper.make_node("ReduceMean", ["c"], ["d"], axes=[1, -2], keepdims=0),
    ],
    "part of the image": [
        helper.make_node("AveragePool", ["b"], ["c"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["c"], ["d"]),
    ],
    "largest": [helper.make_node("GlobalMaxPool", ["b"], ["c"]), helper.make_node("Flatten", ["c"], ["d"])],
}
LAYERS = {
    "Gemm": [helper.make_node("Gemm", ["d", "fc.weight", "fc.bias"], ["y"], transB=1)],
    "MatMul": [
        helper.make_node("MatMul", ["d", "fc.weight"], ["e"]),
        helper.make_node("Add", ["e", "fc.bias"], ["y"]),
    ],
    "Conv": [
        helper.make_node("Unsqueeze", ["d", "spatial"], ["e"]),
        helper.make_node("Conv", ["e", "fc.weight", "fc.bias"], ["f"]),
        helper.make_node("Flatten", ["f"], ["y"]),
    ],
}


def classifier(mean: str, layer: str) -> onnx.ModelProto:
    """x [N, 3, 6, 6] -> Conv -> 32 channels that go together -> mean over places -> y [N, 80]."""
    weight = normal(CLASSES, CHANNELS, seed=3)
    shaped = {"Gemm": weight, "MatMul": weight.T.copy(), "Conv": weight[:, :, None, None]}[layer]
    return model_of(
        [
            helper.make_node("Conv", ["x", "conv.weight"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            *MEANS[mean],
            *LAYERS[layer],
        ],
        [floats("x", "N", 3, SIZE, SIZE)],
        [floats("y", "N", CLASSES)],
        {
            "conv.weight": (normal(CHANNELS, 2, seed=1) @ normal(2, 3, seed=2))[:, :, None, None],
            "fc.weight": shaped,
            "fc.bias": normal(CLASSES, seed=4),
            "spatial": np.array([2, 3]),
        },
    )


def pruned(model: onnx.ModelProto, **settings: Any) -> onnxprune.Result:
    return onnxprune.prune(
        model,
        rate=0.7,
        exclude=["conv.weight"],
        calibration_data={"x": normal(70, 3, SIZE, SIZE, seed=5)},
        eval_data={"x": normal(200, 3, SIZE, SIZE, seed=6)},
        allocation="uniform",
        format="dense",
        remove_dead=False,
        **settings,
    )


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("mean", MEANS)
def test_it_is_fitted_to_what_it_gives_itself_at_each_place(mean, layer, monkeypatch):
    model = classifier(mean, layer)
    result = pruned(model)
    weight, before = initializer(result.model, "fc.weight"), initializer(model, "fc.weight")
    kept = (weight != 0).sum(axis=0 if layer == "MatMul" else 1)
    assert np.ptp(kept) <= 1 and kept.mean() == pytest.approx(0.3 * CHANNELS, rel=0.05)
    fitted = not (weight == before)[weight != 0].all()
    assert fitted == (mean not in ("part of the image", "largest"))
    assert any("Fitted to what it gives itself" in note for note in result.report.notes) == fitted
    assert any("fewer samples than classes" in note for note in result.report.notes)
    if fitted:
        monkeypatch.setattr(onnxprune.job.pruners.calibrated, "places_before", lambda *_: None)
        cosine, largest = (each.report.evaluation["outputs"][0]["cosine"] for each in (result, pruned(model)))
        assert 1 - cosine < 0.5 * (1 - largest)


def test_each_class_keeps_the_same_share_of_its_blocks():
    result = pruned(classifier("global pool", "Gemm"), pattern="1x4")
    blocks = (initializer(result.model, "fc.weight") != 0).reshape(CLASSES, -1, 4)
    assert (blocks.any(2) == blocks.all(2)).all()
    assert np.ptp(blocks.all(2).sum(1)) <= 1

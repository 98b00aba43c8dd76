"""Pipelines of scikit-learn as skl2onnx writes them: a Scaler, dense layers, and the names of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxprune
from tests.surgery.graphs import normal
from tests.surgery.oracle import model, prune_channels, weight_of

CLASSES = np.array(["ant", "bee", "cat"])
LAYERS = """(float[N,6] x) => ({outputs}) {{
    n = ai.onnx.ml.Scaler<offset=[0.5,0.0,1.0,0.0,0.0,0.0], scale=[2.0,1.0,1.0,1.0,0.5,1.0]>(x) c = Cast<to=1>(n)
    h0 = MatMul(c, w1) h1 = Add(h0, b1) h = Relu(h1) l0 = MatMul(h, w2) l = Add(l0, b2) p = Softmax<axis=1>(l)
    {rest}}}"""
LABEL = """a = ArgMax<axis=1>(p) f = ai.onnx.ml.ArrayFeatureExtractor(classes, a) label = Reshape(f, flat)"""


def weights() -> dict[str, np.ndarray]:
    return {"w1": normal(6, 16), "b1": normal(16), "w2": normal(16, 3), "b2": normal(3)}


def pipeline(outputs: str, rest: str = "", **more: np.ndarray) -> onnx.ModelProto:
    made = model(LAYERS.format(outputs=outputs, rest=rest), **weights(), **more)
    made.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    return made


def classifier() -> onnx.ModelProto:
    return pipeline("string[N] label, float[N,3] p", LABEL, classes=CLASSES, flat=np.array([-1]))


def test_neurons_behind_a_scaler_can_go() -> None:
    pruned = prune_channels(pipeline("float[N,3] p")).model
    assert weight_of(pruned, "w1").shape == (6, 8) and weight_of(pruned, "w2").shape == (8, 3)


@pytest.mark.parametrize(
    "settings",
    [{"rate": 0.3}, {"rate": 0.5, "pattern": "channel"}, {"flops": 0.5, "pattern": "channel"}],
    ids=["weights", "channels", "multiply-adds"],
)
def test_a_classifier_with_names_is_pruned_with_calibration_data(tmp_path: Path, settings: dict) -> None:
    data, target = tmp_path / "data.npz", tmp_path / "out.onnx"
    x = normal(64, 6)
    np.savez(data, x=x)
    onnxprune.prune(classifier(), target, calibration_data=data, effort="fast", format="dense", **settings)
    label, probabilities = ort.InferenceSession(target).run(None, {"x": x})
    assert label.tolist() == CLASSES[probabilities.argmax(1)].tolist()
    (first,) = (tensor for tensor in onnx.load(target).graph.initializer if tensor.name == "w1")
    assert first.dims[1] < 16 or "pattern" not in settings

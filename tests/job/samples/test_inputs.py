"""The data of a job, checked against the model and against each other."""

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import DataError
from tests.builders import mlp
from tests.surgery.oracle import model


def table(path, names):
    rows = [",".join(["1"] * 8 + [name]) for name in names]
    path.write_text("\n".join([",".join([*"abcdefgh", "label"]), *rows]))
    return path


def test_named_classes_must_be_those_of_the_model_and_the_same_in_all_data(tmp_path):
    training = table(tmp_path / "train.csv", ["ant", "bee", "cat", "dog"] * 5)
    fewer, others = (
        table(tmp_path / "a.csv", ["ant", "cat"]),
        table(tmp_path / "b.csv", ["ant", "bee", "cow", "dog"]),
    )
    with pytest.raises(DataError, match=r"a.csv has 2 classes \(ant to cat\), but the output has 4"):
        onnxprune.prune(mlp(), rate=0.5, eval_data=fewer)
    with pytest.raises(DataError, match=r"have different classes \(cat\)"):
        onnxprune.prune(mlp(), rate=0.5, data=training, eval_data=others, epochs=1)


def test_without_test_data_the_model_runs_on_random_inputs_of_the_sizes_of_the_calibration_data(tmp_path):
    """Such as a past and a mask of it with the new tokens: sizes that are drawn do not fit each other."""
    proto = model(
        "(float[N,T] x, float[N,P] past, float[N,L] mask) => (float[N,2] y) {"
        "j = Concat<axis=1>(past, x) u = Unsqueeze(j, two) v = Unsqueeze(mask, two) c = Concat<axis=2>(u, v)"
        "m = ReduceMean<axes=[2], keepdims=0>(c) p = Pad(m, widths) s = Slice(p, zero, eight, one)"
        "a = MatMul(s, w1) r = Relu(a) y = MatMul(r, w2)}",
        widths=np.array([0, 0, 0, 8]), zero=np.array([0]), eight=np.array([8]), one=np.array([1]), two=np.array([2]),
        w1=np.ones((8, 16), np.float32), w2=np.ones((16, 2), np.float32),
    )  # fmt: skip
    sizes = {"x": 3, "past": 4, "mask": 7}
    data = tmp_path / "data.npz"
    np.savez(data, **{name: np.ones((20, size), np.float32) for name, size in sizes.items()})
    result = onnxprune.prune(proto, rate=0.5, pattern="channel", calibration_data=data, effort="fast")
    assert result.report.pruned.parameters < result.report.baseline.parameters
    with pytest.raises(DataError, match="give data that fits the model"):
        onnxprune.prune(proto, rate=0.5, pattern="channel")

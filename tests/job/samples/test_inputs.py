"""The data of a job, checked against the model and against each other."""

import pytest

import onnxprune
from onnxprune.errors import DataError
from tests.builders import mlp


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

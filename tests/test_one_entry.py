"""A criterion, a reader, a metric, an operator of training, a rule of surgery: each is one entry in one table."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper

import onnxprune
from onnxprune import cli
from onnxprune.data import readers
from onnxprune.data.readers import READERS, Reader
from onnxprune.data.source import ArraySource
from onnxprune.evaluation.metrics import METRICS, Metric
from onnxprune.pruning.criteria import CRITERIA, Criterion
from onnxprune.surgery.tables import CHANNELS, Axis, Coupling, passes_channels
from onnxprune.training.module.ops import table
from onnxprune.training.module.ops.table import lowers
from tests.builders import floats, initializer, mlp, model_of, normal

ZEROS_IN_PLACE = {"format": "dense", "remove_dead": False}


@contextmanager
def first_in(entries: dict, name: str, entry: object) -> Iterator[None]:
    """A table with one more entry, before the others."""
    others = dict(entries)
    entries.clear()
    entries.update({name: entry, **others})
    try:
        yield
    finally:
        entries.clear()
        entries.update(others)


def largest(weights, measured):
    """The importance of a weight falls with its size."""
    return np.divide(1, np.abs(weights), out=np.zeros_like(weights), where=weights != 0)


def assert_the_largest_are_removed(model):
    for name in ("fc1.weight", "fc2.weight"):
        before, after = np.abs(initializer(mlp(), name)), initializer(model, name)
        assert np.count_nonzero(after) == before.size // 2
        assert before[after != 0].max() < before[after == 0].min()


def test_a_criterion_of_the_weights_alone_is_one_entry(monkeypatch):
    monkeypatch.setitem(CRITERIA, "smallest", Criterion("small weights", largest))
    result = onnxprune.prune(mlp(), rate=0.5, criterion="smallest", **ZEROS_IN_PLACE)
    assert_the_largest_are_removed(result.model)


def test_a_criterion_that_measures_inputs_is_one_entry(monkeypatch):
    monkeypatch.setitem(CRITERIA, "smallest", Criterion("small weights", largest, needs="inputs"))
    data = {"calibration_data": {"x": normal(20, 8)}}
    result = onnxprune.prune(mlp(), rate=0.5, criterion="smallest", **data, **ZEROS_IN_PLACE)
    assert_the_largest_are_removed(result.model)


def test_a_criterion_that_measures_gradients_is_one_entry(monkeypatch):
    entry = Criterion("small weights", largest, needs="gradients", channel_norm="l2")
    monkeypatch.setitem(CRITERIA, "smallest", entry)
    data = {"x": normal(40, 8), "labels": np.arange(40) % 4}
    still = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "schedule": "one-shot"}
    result = onnxprune.prune(mlp(), rate=0.5, criterion="smallest", data=data, **still, **ZEROS_IN_PLACE)
    assert_the_largest_are_removed(result.model)


def test_a_criterion_is_a_choice_of_the_command_line_with_its_help():
    code = (
        "from onnxprune.pruning.criteria import CRITERIA, Criterion\n"
        "CRITERIA['smallest'] = Criterion('small weights matter most', None)\n"
        "from onnxprune import cli\ncli.main(['prune', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text = " ".join(done.stdout.split())
    assert "|smallest]" in text and "smallest: small weights matter most" in text


def test_a_data_reader_is_one_entry(tmp_path, monkeypatch):
    def read(text, request):
        rows = np.loadtxt(text, delimiter=" ", dtype=np.float32)
        arrays = {request.specs[0].name: rows[:, 1:], "labels": rows[:, 0].astype(int)}
        return ArraySource(arrays, text)

    entry = Reader("a .txt file", lambda text: text.endswith(".txt"), read)
    monkeypatch.setattr(readers, "READERS", (entry, *READERS))
    rows = np.column_stack([np.arange(30) % 4, normal(30, 8)])
    np.savetxt(tmp_path / "data.txt", rows, delimiter=" ")
    report = onnxprune.prune(mlp(), rate=0.5, data=tmp_path / "data.txt", epochs=1).report
    assert len(report.fine_tuning) > 1
    report = onnxprune.prune(mlp(), rate=0, eval_data=str(tmp_path / "data.txt")).report
    assert report.evaluation["samples"] == 30 and report.evaluation["baseline"]["name"] == "top-1"
    with pytest.raises(onnxprune.OnnxPruneError, match=r"give a \.txt file, an \.npz file"):
        onnxprune.prune(mlp(), rate=0, eval_data="gone")


def test_a_metric_is_one_entry(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "in.onnx")
    x, labels = normal(40, 8), np.arange(40) % 4
    np.savez("test.npz", x=x, labels=labels)

    def records(found):
        return (np.argsort(found.output, 1)[:, -2:] == found.labels[:, None]).any(1)

    entry = Metric(
        "top-2 error", ("classes",), records, format="{:.2%}", as_error=True, default_for=("classes",)
    )
    with first_in(METRICS, "top-2", entry):
        arguments = ["--rate", "0.5", "--eval-data", "test.npz", "--report", "page.html"]
        cli.main(["in.onnx", "out.onnx", *arguments])
        report = onnxprune.prune("in.onnx", rate=0.5, eval_data="test.npz").report
    (output,) = ort.InferenceSession("in.onnx").run(None, {"x": x})
    expected = np.mean([label in np.argsort(row)[-2:] for row, label in zip(output, labels, strict=True)])
    found = report.evaluation["baseline"]
    assert (found["name"], found["value"], found["samples"]) == ("top-2", expected, 40)
    assert "top-2 error" in capsys.readouterr().out and "top-2 error" in (tmp_path / "page.html").read_text()


def folded():
    """x [N, 4, 4] -> Col2Im, 2 x 2 blocks side by side in images of 4 x 4 -> Conv -> y [N, 2, 4, 4]."""
    nodes = [
        helper.make_node("Col2Im", ["x", "image", "block"], ["c"], "fold", strides=[2, 2]),
        helper.make_node("Conv", ["c", "w"], ["y"], "conv"),
    ]
    weights = {"image": np.array([4, 4]), "block": np.array([2, 2]), "w": normal(2, 1, 1, 1)}
    return model_of(nodes, [floats("x", "N", 4, 4)], [floats("y", "N", 2, 4, 4)], weights, opset=18)


def test_an_operator_of_training_is_one_entry(monkeypatch):
    x = normal(40, 4, 4)
    data = {"x": x, "labels": normal(40, 2, 4, 4, seed=1)}
    settings = {"rate": 0.5, "data": data, "epochs": 3, "batch_size": 8, "warmup": 0, **ZEROS_IN_PLACE}
    # In front of all weights onnxruntime can run it for the training.
    with pytest.raises(onnxprune.OnnxPruneError, match="Col2Im"):
        onnxprune.to_torch(folded())
    monkeypatch.setattr(table, "_LOWERINGS", {key: [*value] for key, value in table._LOWERINGS.items()})

    @lowers("Col2Im", since=18, static=(1, 2))
    def col2im(x, image, block, *, strides):
        return torch.nn.functional.fold(x, image, block, stride=strides)

    (y,) = onnxprune.to_torch(folded())(torch.from_numpy(x))
    (expected,) = ort.InferenceSession(folded().SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    after = initializer(onnxprune.prune(folded(), **settings).model, "w")
    assert np.count_nonzero(after) == 1
    assert not np.isin(after[after != 0], initializer(folded(), "w")).any()


def triangular():
    """x [N, 3, 5, 5] -> Conv -> Trilu -> Conv -> y [N, 2, 5, 5]."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "conv1"),
        helper.make_node("Trilu", ["a"], ["b"], "triangle"),
        helper.make_node("Conv", ["b", "w2"], ["y"], "conv2"),
    ]
    weights = {"w1": normal(8, 3, 1, 1), "w2": normal(2, 8, 1, 1, seed=1)}
    return model_of(nodes, [floats("x", "N", 3, 5, 5)], [floats("y", "N", 2, 5, 5)], weights)


def test_a_rule_of_surgery_is_one_entry(monkeypatch):
    settings = {"rate": 0.5, "pattern": "channel"}
    with pytest.raises(onnxprune.OnnxPruneError, match=r"no channel can be removed .*'w1': .*Trilu"):
        onnxprune.prune(triangular(), **settings)
    # What is entered is dropped in the end.
    monkeypatch.setitem(CHANNELS, ("", "Trilu"), None)
    del CHANNELS["", "Trilu"]

    @passes_channels("Trilu")
    def trilu(node, facts):
        for dim in (0, 1):
            yield Coupling(Axis(node.inputs[0], dim), Axis(node.outputs[0], dim))

    result = onnxprune.prune(triangular(), **settings)
    assert initializer(result.model, "w1").shape == (4, 3, 1, 1)
    assert initializer(result.model, "w2").shape == (2, 4, 1, 1)

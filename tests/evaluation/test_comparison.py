"""Two models compared on data: metrics on labels, and differences of outputs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import helper

from onnxprune.data.axes import BatchAxes
from onnxprune.data.dataset import Dataset
from onnxprune.errors import DataError
from onnxprune.evaluation import significance
from onnxprune.evaluation.comparison import Evaluation, Tolerance, _Difference, compare
from onnxprune.evaluation.labels import LabelForm
from onnxprune.evaluation.scores import Metrics
from onnxprune.evaluation.sessions import make_session
from onnxprune.reports.summary import score_texts
from onnxprune.system.packages import import_torchvision
from tests.builders import floats, mlp, model_of, normal

import_torchvision("a test")
from torchmetrics.functional import f1_score  # noqa: E402


def linear(weight, batch="N"):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")
    return model_of([node], [floats("x", batch, 8)], [floats("y", batch, weight.shape[1])], {"w": weight})


def session(model):
    return make_session(model, "a test model")


def dataset(count, labels=None):
    return Dataset.of({"x": normal(count, 8)}, labels)


def test_top_1_counts_the_samples_that_are_right():
    weight = normal(8, 4, seed=1)
    right = (normal(600, 8) @ weight).argmax(1)
    right[:30] = (right[:30] + 1) % 4
    result = compare(session(linear(weight)), session(linear(-weight)), dataset(600, right))
    assert result.baseline.value == 570 / 600 and result.pruned.value < 0.5
    assert result.drop() == result.baseline.value - result.pruned.value
    assert result.loss() == result.drop() / result.baseline.value


def test_float_labels_are_evaluated_by_mean_squared_error():
    weight = normal(8, 3, seed=1)
    target = normal(40, 8) @ weight
    result = compare(session(linear(weight)), session(linear(weight * 0)), dataset(40, target))
    assert result.baseline.value == pytest.approx(0, abs=1e-10)
    assert result.pruned.value == pytest.approx((target**2).mean(), rel=1e-5)


def test_the_error_of_the_drop_counts_only_samples_that_the_models_differ_on():
    weight = normal(8, 4, seed=1)
    worse = weight + normal(8, 4, seed=2) / 2
    x = normal(600, 8)
    labels = (x @ (weight + normal(8, 4, seed=3) / 2)).argmax(1)
    result = compare(session(linear(weight)), session(linear(worse)), dataset(600, labels))
    lost = ((x @ weight).argmax(1) == labels) * 1.0 - ((x @ worse).argmax(1) == labels)
    assert result.drop() == pytest.approx(lost.mean())
    assert result.drop_error == pytest.approx(lost.std() / np.sqrt(600))
    same = compare(session(linear(weight)), session(linear(weight)), dataset(600, labels))
    assert same.drop() == 0 and same.drop_error == pytest.approx(1 / 600)


def errors_by_resampling(labels, weight, worse, name, draws=300):
    """The standard deviation of the drop over samples drawn anew, with torchmetrics' or numpy's values."""
    x, random = normal(len(labels), 8), np.random.default_rng(9)
    value = {
        "mse": lambda y, of: ((y - of) ** 2).mean(),
        "f1": lambda y, of: float(
            f1_score(*map(torch.from_numpy, (y, of)), "multiclass", num_classes=4, average="macro")
        ),
    }[name]
    drops = []
    for _ in range(draws):
        draw = random.integers(0, len(labels), len(labels))
        drops.append(value(x[draw] @ worse, labels[draw]) - value(x[draw] @ weight, labels[draw]))
    return np.std(drops)


@pytest.mark.parametrize("name", ["mse", "f1"])
def test_the_error_of_a_drop_is_that_of_resampling(name):
    weight = normal(8, 4, seed=1)
    worse = weight + normal(8, 4, seed=2) / 2
    labels = normal(400, 8) @ weight + normal(400, 4, seed=3) * 2
    labels = labels if name == "mse" else labels.argmax(1)
    result = compare(
        session(linear(weight)), session(linear(worse)), dataset(400, labels), metrics=Metrics((name,))
    )
    assert result.drop_error == pytest.approx(errors_by_resampling(labels, weight, worse, name), rel=0.15)


def test_the_error_of_many_samples_is_that_of_a_part_of_them_scaled(monkeypatch):
    weight, labels = normal(8, 4, seed=1), (normal(2000, 8) @ normal(8, 4, seed=1)).argmax(1)
    models = session(linear(weight)), session(linear(weight + normal(8, 4, seed=2)))
    errors = []
    for drawn in (5000, 500):
        monkeypatch.setattr(significance, "MOST_DRAWN", drawn)
        errors.append(compare(*models, dataset(2000, labels), metrics=Metrics(("f1",))).drop_error)
    assert errors[1] == pytest.approx(errors[0], rel=0.2)


def test_a_drop_is_absolute_and_a_loss_relative_to_the_baseline():
    weight, labels = normal(8, 3, seed=1), normal(40, 3, seed=5)
    result = compare(session(linear(weight)), session(linear(weight * 2)), dataset(40, labels))
    old, new = (((normal(40, 8) @ each - labels) ** 2).mean() for each in (weight, weight * 2))
    assert result.drop() == pytest.approx(new - old, rel=1e-5)
    assert result.loss() == pytest.approx(new / old - 1, rel=1e-5)


def test_all_metrics_are_in_the_json_and_the_first_one_counts():
    weight, labels = normal(8, 4, seed=1), np.arange(60) % 4
    models = session(linear(weight)), session(linear(-weight))
    result = compare(*models, dataset(60, labels), metrics=Metrics(("f1", "top-1")))
    record = json.loads(json.dumps(result.to_dict()))
    assert [pair["baseline"]["name"] for pair in record["scores"]] == ["f1", "top-1"]
    assert record["baseline"] == record["scores"][0]["baseline"] and record["baseline"]["title"] == "F1"
    assert record["pruned"]["text"] == f"{record['pruned']['value']:.2%}"
    assert record["drop"] == record["baseline"]["value"] - record["pruned"]["value"]
    assert [row[0] for row in score_texts(record)] == ["F1", "top-1 error"]


def test_records_written_before_there_were_several_scores_are_shown():
    old = {
        "baseline": {"name": "top-1", "value": 0.75, "samples": 8},
        "pruned": {"name": "top-1", "value": 0.5, "samples": 8},
    }
    assert list(score_texts(old)) == [("top-1 error", "25.00%", "50.00%")]
    assert not list(score_texts({"baseline": None, "pruned": None}))


def test_a_metric_without_labels_is_refused():
    models = session(mlp()), session(mlp())
    with pytest.raises(DataError, match="--metric f1 needs labels, but samples has none"):
        compare(*models, dataset(8), metrics=Metrics(("f1",)))


def test_differences_are_those_of_the_outputs():
    weight = normal(8, 4, seed=1)
    output = compare(session(linear(weight)), session(linear(weight * 0.5)), dataset(50)).outputs[0]
    full = normal(50, 8) @ weight
    assert output.cosine == pytest.approx(1) and output.agreement == 1
    assert output.absolute == pytest.approx(np.abs(full).max() / 2, rel=1e-5)
    assert output.relative == pytest.approx(0.5, rel=1e-5)


def test_equal_models_do_not_differ():
    output = compare(session(mlp()), session(mlp()), dataset(50)).outputs[0]
    assert (output.absolute, output.relative, output.agreement) == (0, 0, 1)


def test_a_fixed_batch_evaluates_every_sample_once():
    weight = normal(8, 4, seed=1)
    labels = (normal(50, 8) @ weight).argmax(1)
    data = replace(dataset(50, labels), axes=BatchAxes(size=16))
    result = compare(session(linear(weight, 16)), session(linear(weight, 16)), data)
    assert result.samples == result.baseline.samples == 50 and result.baseline.value == 1


def test_agreement_is_along_the_axis_of_the_classes():
    maps = np.random.default_rng(0).random((2, 3, 4, 5), dtype=np.float32)
    moved = maps.copy()
    moved[0, :, 0, 0] = moved[0, ::-1, 0, 0]
    found = _Difference(Tolerance())
    found.add(maps, moved)
    # One of forty pixels has another class, unless its largest value was in the middle.
    assert found.compared == 40 and found.agreeing == (39 if maps[0, :, 0, 0].argmax() != 1 else 40)
    for form, compared in ((LabelForm("targets", "d"), 0), (LabelForm("positions", "d", axis=3), 24)):
        found = _Difference(Tolerance(), form)
        found.add(maps, moved)
        assert found.compared == compared


def test_outputs_of_other_sizes_are_not_the_same():
    difference = _Difference(Tolerance())
    difference.add(np.ones((5, 3), np.int64), np.ones((2, 3), np.int64))
    found = difference.result("boxes")
    assert (found.cosine, found.agreement, found.mismatched) == (0, 0, 15)


def test_sequences_and_maps_are_compared_array_by_array():
    difference = _Difference(Tolerance())
    difference.add([{0: 0.25, 1: 0.75}, {0: 1.0, 1: 0.0}], [{0: 0.75, 1: 0.25}, {0: 1.0, 1: 0.0}])
    found = difference.result("maps")
    assert (found.absolute, found.agreement, found.elements) == (0.5, 0.5, 4)
    difference = _Difference(Tolerance())
    difference.add([np.ones(2), np.ones(3)], [np.ones(2)])
    assert (difference.result("list").mismatched, difference.elements) == (3, 5)


def test_an_output_without_elements_is_not_what_models_are_compared_by():
    empty, full = (_Difference(Tolerance()) for _ in range(2))
    empty.add(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32))
    full.add(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[::-1])
    found = Evaluation("data", 4, (), (empty.result("boxes"), full.result("scores")))
    assert found.outputs[0].elements == 0 and found.outputs[0].cosine == 1
    assert found.compares and found.drop() == 1
    assert not replace(found, outputs=found.outputs[:1]).compares


def test_boxes_that_only_one_model_finds_are_differences():
    difference = _Difference(Tolerance())
    difference.add(np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32))
    found = difference.result("boxes")
    assert (found.elements, found.mismatched, found.cosine) == (12, 12, 0)

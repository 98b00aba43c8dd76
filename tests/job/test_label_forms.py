"""Jobs on labels of every form: what is trained on, by which metric the best state is selected, and what is shown."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import onnxprune
from tests.builders import floats, mlp, model_of, normal

X = normal(120, 8)
CLASSES = np.arange(120) % 4
ONE_HOT = np.eye(4)[CLASSES]
SETTINGS = {"rate": 0.3, "epochs": 2, "batch_size": 20}


def one_unit(last=()):
    """Eight inputs, a hidden layer, one output."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"], name="fc1"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w2"], ["logit" if last else "y"], name="fc2"),
        *(helper.make_node(name, ["logit"], ["y"]) for name in last),
    ]
    weights = {"w1": normal(8, 16), "w2": normal(16, 1)}
    return model_of(nodes, [floats("x", "N", 8)], [floats("y", "N", 1)], weights)


def two_outputs():
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"], name="fc1"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w2"], ["kind"], name="fc2"),
        helper.make_node("Gemm", ["b", "w3"], ["size"], name="fc3"),
    ]
    weights = {"w1": normal(8, 16), "w2": normal(16, 4), "w3": normal(16, 2)}
    outputs = [floats("kind", "N", 4), floats("size", "N", 2)]
    return model_of(nodes, [floats("x", "N", 8)], outputs, weights)


SIZES = X[:, :2] * 2
FORMS = {
    "classes": (mlp(), CLASSES.astype(np.uint8), "top-1"),
    "classes in a column": (mlp(), CLASSES[:, None], "top-1"),
    "one-hot": (mlp(), ONE_HOT.astype(np.float32), "top-1"),
    "several classes at once": (mlp(), (X[:, :4] > 0).astype(np.int8), "f1"),
    "yes or no, as logits": (one_unit(), CLASSES > 1, "top-1"),
    "yes or no, as probabilities": (one_unit(["Sigmoid"]), (CLASSES > 1).astype(int)[:, None], "top-1"),
    "targets": (one_unit(), X[:, :1], "mse"),
    "pairs": (mlp(), np.repeat(np.arange(60), 2).astype(np.float32) / 60, "spearman"),
}


@pytest.mark.parametrize(("model", "labels", "metric"), FORMS.values(), ids=FORMS.keys())
def test_labels_of_every_form_are_trained_on_and_scored(model, labels, metric):
    # One score for two samples could be anything: it is asked for.
    asked = {"metric": metric} if metric == "spearman" else {}
    report = onnxprune.prune(model, data={"x": X, "labels": labels}, **asked, **SETTINGS).report
    assert report.evaluation["baseline"]["name"] == metric
    assert {epoch["metric"] for epoch in report.fine_tuning} == {metric}
    assert all(np.isfinite(epoch["loss"]) for epoch in report.fine_tuning)
    # Pairs are for the metric: there is nothing that one embedding should be.
    assert any("for the metric alone" in note for note in report.notes) == (metric == "spearman")


def test_yes_or_no_is_learned():
    labels = (X @ normal(8, seed=3) > 0).astype(int)
    settings = SETTINGS | {"epochs": 60, "learning_rate": 3e-2, "distill": 0.0, "mixup": False}
    for model in (one_unit(), one_unit(["Sigmoid"])):
        report = onnxprune.prune(
            model, data={"x": X, "labels": labels}, eval_data={"x": X, "labels": labels}, **settings
        )
        scores = report.report.evaluation
        assert scores["baseline"]["value"] < 0.7 and scores["pruned"]["value"] > 0.9


def test_several_outputs_have_their_labels_and_all_are_learned():
    data = {"x": X, "labels.kind": (X[:, 0] > 0).astype(int), "labels.size": SIZES}
    settings = SETTINGS | {"epochs": 100, "learning_rate": 3e-2, "distill": 0.0, "mixup": False}
    report = onnxprune.prune(two_outputs(), data=data, eval_data=data, **settings).report
    kind, size = report.evaluation["scores"]
    assert [score["baseline"]["output"] for score in (kind, size)] == ["kind", "size"]
    assert kind["pruned"]["value"] > 0.9 > kind["baseline"]["value"]
    assert size["pruned"]["value"] < 0.2 * size["baseline"]["value"]


def test_pairs_are_split_whole_and_an_odd_sample_is_refused():
    labels = np.repeat(np.arange(60), 2).astype(np.float32)
    report = onnxprune.prune(mlp(), data={"x": X, "labels": labels}, metric="spearman", **SETTINGS).report
    assert report.evaluation["samples"] == 12
    with pytest.raises(onnxprune.OnnxPruneError, match=r"119|pairs|whole groups"):
        onnxprune.prune(mlp(), rate=0, eval_data={"x": X[:119], "labels": labels[:119]}, metric="spearman")


def test_several_metrics_are_shown_and_the_first_one_counts():
    data = {"x": X, "labels": CLASSES}
    report = onnxprune.prune(mlp(), rate=0.5, eval_data=data, metric="f1,top-1").report
    assert [score["pruned"]["name"] for score in report.evaluation["scores"]] == ["f1", "top-1"]
    first = report.evaluation["scores"][0]
    assert report.evaluation["drop"] == pytest.approx(first["baseline"]["value"] - first["pruned"]["value"])


CUSTOM = """
import numpy as np

class Largest:
    '''The largest error of all samples: no mean of scores.'''
    higher_is_better = False

    def __init__(self):
        self.found = 0.0

    def update(self, outputs, labels):
        self.found = max(self.found, float(np.abs(outputs["y"] - labels).max()))

    def compute(self):
        return self.found

def within_one(outputs, labels):
    return (np.abs(outputs["y"] - labels) < 1).all(1)
"""


def test_metrics_of_ones_own_select_the_best_state_and_are_shown(tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text(CUSTOM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data = {"x": X, "labels": SIZES[:, :1]}
    names = "own_metrics:Largest,own_metrics:within_one"
    report = onnxprune.prune(one_unit(), data=data, eval_data=data, metric=names, **SETTINGS).report
    assert {epoch["metric"] for epoch in report.fine_tuning} == {"own_metrics:Largest"}
    assert not any(epoch["higher_is_better"] for epoch in report.fine_tuning)
    last = report.fine_tuning[-1]["step"]
    best = min(epoch["score"] for epoch in report.fine_tuning if epoch["step"] == last)
    chosen = onnxprune.prune(one_unit(), data=data, metric=names, **SETTINGS).report.evaluation["scores"]
    assert chosen[0]["pruned"]["value"] == pytest.approx(best, rel=1e-5)
    assert chosen[1]["pruned"]["samples"] == 12


def features_and_logits(*widths):
    """x [N, 8] -> features [N, widths[0]] -> logits [N, widths[1]]; both are outputs."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["features"], name="fc1"),
        helper.make_node("Relu", ["features"], ["b"]),
        helper.make_node("Gemm", ["b", "w2"], ["logits"], name="fc2"),
    ]
    weights = {"w1": normal(8, widths[0]), "w2": normal(*widths)}
    outputs = [floats(name, "N", width) for name, width in zip(("features", "logits"), widths, strict=True)]
    return model_of(nodes, [floats("x", "N", 8)], outputs, weights)


DATA = {"x": X, "labels": CLASSES}


@pytest.mark.parametrize("widths", [(64, 10), (4, 4), (10, 64)])
def test_labels_that_fit_several_outputs_are_asked_about(widths):
    model = features_and_logits(*widths)
    message = (
        r"fit several outputs, features \[N, \d+\] and logits \[N, \d+\]: .* --output logits.*labels\.logits"
    )
    for job in (
        lambda **given: onnxprune.prune(model, data=DATA, **SETTINGS, **given),
        lambda **given: onnxprune.prune(model, rate=0.3, eval_data=DATA, **given),
        lambda **given: onnxprune.compare(model, model, data=DATA, **given),
        lambda **given: onnxprune.sensitivity(model, DATA, rates=[0.5], **given),
    ):
        with pytest.raises(onnxprune.OnnxPruneError, match=message):
            job()
        job(label_output="logits")
    with pytest.raises(
        onnxprune.OnnxPruneError, match="--output y is no output of the model: give one of features"
    ):
        onnxprune.prune(model, data=DATA, **SETTINGS, label_output="y")


def test_the_output_that_is_named_is_trained_and_scored():
    model = features_and_logits(64, 4)
    settings = SETTINGS | {"epochs": 3, "distill": 0.0, "mixup": False, "learning_rate": 1e-3}
    asked = onnxprune.prune(model, data=DATA, **settings, label_output="logits")
    named = onnxprune.prune(model, data={"x": X, "labels.logits": CLASSES}, **settings)
    assert asked.report.fine_tuning == named.report.fine_tuning
    assert asked.report.evaluation["baseline"]["output"] == "logits"
    assert asked.report.fine_tuning[-1]["loss"] < asked.report.fine_tuning[0]["loss"]


def cross_entropy(outputs, labels):
    return torch.nn.functional.cross_entropy(outputs[1], labels)


def test_a_loss_function_gets_the_labels_that_have_no_name_as_they_are():
    settings = {"loss": f"{__name__}:cross_entropy", "label_output": "logits"}
    report = onnxprune.prune(features_and_logits(64, 10), data=DATA, **SETTINGS, **settings).report
    assert np.isfinite(report.fine_tuning[-1]["loss"])


def test_labels_belong_to_the_only_output_that_they_fit():
    # Class 3 is none of two.
    swapped = features_and_logits(2, 4)
    report = onnxprune.prune(swapped, data=DATA, **SETTINGS).report
    assert report.evaluation["baseline"]["output"] == "logits"
    numbers = {"x": X, "labels": normal(120, 4)}
    report = onnxprune.prune(features_and_logits(64, 4), data=numbers, **SETTINGS).report
    score = report.evaluation["baseline"]
    assert (score["name"], score["output"]) == ("mse", "logits")


def test_the_classes_that_a_model_computes_itself_are_not_trained_but_their_probabilities():
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["p"], name="fc"),
        helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0),
    ]
    label = helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["N"])
    model = model_of(nodes, [floats("x", "N", 8)], [label, floats("p", "N", 4)], {"w": normal(8, 4)})
    report = onnxprune.prune(model, data=DATA, **SETTINGS).report
    assert (report.evaluation["baseline"]["name"], report.evaluation["baseline"]["output"]) == ("top-1", "p")

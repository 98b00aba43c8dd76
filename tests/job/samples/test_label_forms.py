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


def masks():
    """Images of 8 inputs, 3 x 3, and a mask of one unit."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="c1", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["y"], name="c2"),
    ]
    shape = ("N", 1, 3, 3)
    weights = {"w1": normal(8, 8, 3, 3) / 8, "w2": normal(1, 8, 1, 1) / 8}
    return model_of(nodes, [floats("x", "N", 8, 3, 3)], [floats("y", *shape)], weights)


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
    "yes or no, as -1 and 1": (one_unit(), np.where(CLASSES > 1, 1, -1), "top-1"),
    "yes or no, some unknown": (one_unit(), np.where(CLASSES > 2, -100, CLASSES > 1), "top-1"),
    "classes, some unknown": (mlp(), np.where(X[:, 0] > 1, -100, CLASSES), "top-1"),
    "probabilities": (mlp(), np.exp(X[:, :4]) / np.exp(X[:, :4]).sum(1, keepdims=True), "top-1"),
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


LOSSES = {
    "classes": (mlp(), CLASSES, "class numbers) is cross-entropy of logits"),
    "yes or no": (one_unit(["Sigmoid"]), CLASSES > 1, "0 or 1) is binary cross-entropy of probabilities"),
    "-1 and 1": (one_unit(), np.where(CLASSES > 1, 1, -1), "-1 or 1) is binary cross-entropy of logits"),
    "targets": (one_unit(), CLASSES, "numbers of the output's shape) is mean squared error"),
}


@pytest.mark.parametrize(("model", "labels", "words"), LOSSES.values(), ids=LOSSES.keys())
def test_the_summary_names_the_loss(model, labels, words):
    report = onnxprune.prune(model, data={"x": X, "labels": labels}, **SETTINGS | {"epochs": 1}).report
    assert f"The loss on the labels ({words}." in report.notes


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_masks_of_one_unit_are_learned_by_dice(dtype):
    images = normal(120, 8, 3, 3)
    truth = (images[:, :1] > 1).astype(dtype)
    data = {"x": images, "labels": truth}
    settings = SETTINGS | {"epochs": 20, "learning_rate": 3e-2, "distill": 0.0, "mixup": False}
    scores = onnxprune.prune(masks(), data=data, eval_data=data, loss="dice", metric="iou", **settings)
    evaluation = scores.report.evaluation
    assert evaluation["pruned"]["value"] > 2 * evaluation["baseline"]["value"]


def test_training_and_validation_data_have_one_loss():
    data = {"x": X, "labels": (X[:, :4] > 0).astype(int)}
    with pytest.raises(onnxprune.OnnxPruneError, match="different losses: give the same form in both"):
        onnxprune.prune(mlp(), data=data, validation_data={"x": X, "labels": CLASSES}, **SETTINGS)
    shares = {"x": X, "labels": np.full((120, 4), 0.25)}
    found = onnxprune.prune(mlp(), data=shares, validation_data={"x": X, "labels": CLASSES}, **SETTINGS)
    assert found.report.fine_tuning[-1]["metric"] == "top-1"


OWN = """
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

seen = []

def size(outputs, labels):
    seen.append(labels)
    return (outputs[0].mean(1) - labels.float().mean((1, 2))).square().mean() - 1000

def named(outputs, labels):
    seen.append(labels)
    return (outputs[0] - labels["boxes"].mean(1)).square().mean()

def several(outputs, labels):
    seen.append(labels)
    return binary_cross_entropy_with_logits(outputs[0], labels.float())

def texts(outputs, labels):
    seen.append(labels)
    return outputs[0].square().mean() * len(labels)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    import sys

    (tmp_path / "own_losses.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_losses", None)


def test_a_loss_of_ones_own_sees_labels_of_any_form_as_they_are(own):
    boxes = normal(120, 7, 5)
    settings = SETTINGS | {"mixup": False}
    report = onnxprune.prune(mlp(), data={"x": X, "labels": boxes}, loss="own_losses:size", **settings).report
    import own_losses

    shapes = {tuple(labels.shape) for labels in own_losses.seen}
    assert (20, 7, 5) in shapes and {shape[1:] for shape in shapes} == {(7, 5)}
    seen = np.unique(np.concatenate([each.ravel() for each in own_losses.seen]))
    assert np.isin(seen, boxes).all() and len(seen) > 0.8 * boxes.size
    assert "The loss on the labels (as they are) is own_losses:size." in report.notes
    assert any("No metric knows the labels" in note for note in report.notes)
    assert report.evaluation["scores"] == [] and report.fine_tuning[-1]["metric"] is None
    # A loss may be negative.
    assert report.fine_tuning[-1]["loss"] < 0


def test_a_loss_of_ones_own_takes_labels_of_any_names(own):
    boxes, data = normal(120, 4), {"x": X, "labels": CLASSES, "labels.boxes": normal(120, 2, 4)}
    report = onnxprune.prune(mlp(), data=data, loss="own_losses:named", **SETTINGS).report
    import own_losses

    assert all(set(labels) == {"", "boxes"} for labels in own_losses.seen)
    assert report.fine_tuning[-1]["metric"] == "top-1"
    del data["labels"]
    report = onnxprune.prune(mlp(), data=data, loss="own_losses:named", **SETTINGS).report
    assert report.fine_tuning[-1]["metric"] is None
    data = {"x": X, "labels.boxes": boxes}
    with pytest.raises(onnxprune.OnnxPruneError, match="labels of 'boxes', which is no output"):
        onnxprune.prune(mlp(), data=data, **SETTINGS)


def test_labels_are_unchanged_for_a_loss_of_ones_own_and_read_by_the_metric(own):
    several = np.where(X[:, :4] > 0, 1, 0).astype(np.int8)
    report = onnxprune.prune(
        mlp(), data={"x": X, "labels": several}, loss="own_losses:several", **SETTINGS
    ).report
    import own_losses

    assert report.fine_tuning[-1]["metric"] == "f1"
    own_losses.seen.clear()
    names = np.array(["one", "two"])[CLASSES % 2]
    onnxprune.prune(mlp(), data={"x": X, "labels": names}, loss="own_losses:texts", **SETTINGS)
    assert {type(labels) for labels in own_losses.seen} == {np.ndarray}
    # The last samples have a class that the model does not have, which is no matter for this loss.
    late = np.where(np.arange(120) == 50, 9, CLASSES)
    own_losses.seen.clear()
    onnxprune.prune(mlp(), data={"x": X, "labels": late}, loss="own_losses:texts", **SETTINGS)
    assert max(int(labels.max()) for labels in own_losses.seen) == 9


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

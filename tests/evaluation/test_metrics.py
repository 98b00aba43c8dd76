"""The values of the metrics, against torchmetrics and numbers worked out by hand."""

import pickle

import numpy as np
import pytest
import torch

from onnxprune.data.batch import Batch
from onnxprune.errors import DataError, MissingPackageError, SettingError
from onnxprune.evaluation import metrics as table
from onnxprune.evaluation.forms import find_form
from onnxprune.evaluation.labels import KINDS
from onnxprune.evaluation.metrics import METRICS, default_metric
from onnxprune.evaluation.scores import Metrics, RunningScores
from onnxprune.system import packages
from onnxprune.system.packages import import_torchvision
from tests.builders import normal

import_torchvision("a test")
import torchmetrics.functional as F  # noqa: E402
from torchmetrics.functional.image import peak_signal_noise_ratio  # noqa: E402

RANDOM = np.random.default_rng(5)


def running(names, labels, output, **more):
    """Scores to be added up, for labels of their forms; `names`: of metrics."""
    metrics = Metrics(tuple(names.split()), **more)
    made = metrics.processed({"y": output}, len(labels))["y"]
    form = find_form(labels, made, "samples", metrics.wanted())
    return RunningScores(metrics, {"": form}, ["y"])


def batches(labels, output, size, inputs=None):
    inputs = np.zeros((len(labels), 3, 40, 80)) if inputs is None else inputs
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        yield [output[part]], Batch({"x": inputs[part]}, {"": labels[part]}, "samples")


def scores(names, labels, output, size=7, **more):
    found = running(names, labels, output, **more)
    (track, *_) = found.tracks
    for outputs, batch in batches(track.form.normalize(labels), output, size):
        found.add(outputs, batch)
    return {score.name: score.value for score in found.results()}


def tensors(*arrays):
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


LABELS, LOGITS = RANDOM.integers(0, 9, 200), normal(200, 10)
LOGITS[np.arange(100), LABELS[:100]] += 2


def test_top_1_top_5_and_f1_of_classes():
    found = scores("top-1 top-5 f1", LABELS, LOGITS)
    given = tensors(LOGITS, LABELS)
    for name, settings in {"top-1": {"top_k": 1}, "top-5": {"top_k": 5}}.items():
        expected = F.accuracy(*given, "multiclass", num_classes=10, average="micro", **settings)
        assert found[name] == pytest.approx(float(expected))
    expected = F.f1_score(*given, "multiclass", num_classes=10, average="macro")
    assert found["f1"] == pytest.approx(float(expected))


def test_equal_outputs_are_ranked_by_their_class():
    assert scores("top-5", np.array([4, 5]), np.zeros((2, 8), np.float32)) == {"top-5": 0.5}


@pytest.mark.parametrize("axis", [1, -1])
def test_masks_without_ignored_pixels(axis):
    labels, logits = RANDOM.integers(0, 4, (20, 6, 8)), normal(20, 4, 6, 8)
    logits += np.moveaxis(np.eye(4)[labels], -1, 1)
    # Class 4 is predicted nowhere and in no label.
    logits = np.concatenate([logits, np.full((20, 1, 6, 8), -99)], 1)
    labels[RANDOM.random(labels.shape) < 0.2] = 255
    found = scores("top-1 iou f1", labels, np.moveaxis(logits, 1, axis))
    given = *tensors(logits, labels), "multiclass"
    kept = {"num_classes": 5, "ignore_index": 255}
    assert found["top-1"] == pytest.approx(float(F.accuracy(*given, average="micro", **kept)))
    # torchmetrics counts a class that is nowhere as 0 in the IoU.
    by_class = F.jaccard_index(*given, average="none", **kept)
    assert found["iou"] == pytest.approx(float(by_class[:4].mean())) and by_class[4] == 0
    assert found["f1"] == pytest.approx(float(F.f1_score(*given, average="macro", **kept)))


def test_labels_of_tokens_leave_out_ignored_positions():
    labels = np.array([[1, 0, -100], [-100, -100, 2]])
    output = np.eye(3, dtype=np.float32)[[[1, 1, 1], [0, 0, 2]]]
    assert scores("top-1", labels, output)["top-1"] == 2 / 3


@pytest.mark.parametrize("output", [normal(60, 1), 1 / (1 + np.exp(-normal(60, 1)))])
def test_binary_labels_compare_logits_with_0_and_probabilities_with_half(output):
    labels = RANDOM.integers(0, 2, 60)
    given = *tensors((normal(60) > 0).astype(int), labels), "binary"
    found = scores("top-1 f1", labels, output)
    assert found == pytest.approx({"top-1": float(F.accuracy(*given)), "f1": float(F.f1_score(*given))})


def test_binary_masks():
    labels, logits = RANDOM.integers(0, 2, (9, 1, 5, 5)), normal(9, 1, 5, 5)
    found = scores("iou f1", labels, logits)
    guess = tensors((logits > 0).astype(int), labels)
    assert found["f1"] == pytest.approx(float(F.f1_score(*guess, "binary")))
    both = F.jaccard_index(*guess, "multiclass", num_classes=2, average="macro")
    assert found["iou"] == pytest.approx(float(both))


def test_multi_label_f1_is_the_default():
    labels, logits = RANDOM.integers(0, 2, (80, 5)), normal(80, 5)
    (score,) = [RunningScores(Metrics(), {"": find_form(labels, logits, "samples")}, ["y"])]
    assert [track.name for track in score.tracks] == ["f1"]
    expected = F.f1_score(*tensors(logits, labels), "multilabel", num_labels=5, average="macro")
    assert scores("f1", labels, logits)["f1"] == pytest.approx(float(expected))


def test_the_error_of_several_classes_at_once_is_that_of_their_labels():
    labels, logits = RANDOM.integers(0, 2, (80, 5)), normal(80, 5)
    expected = F.accuracy(*tensors(logits, labels), "multilabel", num_labels=5, average="micro")
    assert scores("top-1", labels, logits)["top-1"] == pytest.approx(float(expected))


def test_probabilities_of_classes_stand_for_the_likeliest():
    shares = np.exp(normal(200, 10, seed=3))
    shares /= shares.sum(1, keepdims=True)
    assert scores("top-1 top-5", shares, LOGITS) == scores("top-1 top-5", shares.argmax(1), LOGITS)


@pytest.mark.parametrize(
    ("names", "shape", "classes"),
    [("top-1 f1 top-5", (200,), 10), ("top-1 f1 iou", (200, 1, 3, 3), 2), ("top-1 f1 iou", (200, 6), 2)],
)
def test_ignored_labels_count_in_no_metric(names, shape, classes):
    labels = RANDOM.integers(0, classes, shape)
    output = LOGITS if classes == 10 else normal(*shape)
    ignored = RANDOM.random(shape) < 0.3
    if len(shape) == 1:
        expected = scores(names, labels[~ignored], output[~ignored])
    else:
        # Right or wrong, a label that is ignored changes nothing.
        expected = scores(names, np.where(ignored, -100, labels), np.where(ignored, -output, output))
    assert scores(names, np.where(ignored, -100, labels), output) == pytest.approx(expected)
    assert scores(names, labels, output) != pytest.approx(expected)


def test_mse_and_psnr():
    labels = RANDOM.random((12, 3, 8, 8)).astype(np.float32)
    output = labels + normal(12, 3, 8, 8) / 20
    found = scores("mse psnr", labels, output)
    assert found["mse"] == pytest.approx(((output - labels) ** 2).mean(), rel=1e-5)
    by_image = peak_signal_noise_ratio(
        *tensors(output, labels), data_range=1.0, dim=(1, 2, 3), reduction="none"
    )
    assert found["psnr"] == pytest.approx(float(by_image.mean()), rel=1e-5)
    pixels = (labels * 255).round().astype(np.uint8)
    assert scores("psnr", pixels, output * 255)["psnr"] == pytest.approx(found["psnr"], rel=1e-3)
    assert scores("psnr", labels, labels)["psnr"] == 100


@pytest.mark.parametrize("size", [1, 3, 8, 40])
def test_spearman_ranks_the_cosines_of_pairs_across_the_ends_of_batches(size):
    embeddings, values = normal(40, 6), RANDOM.integers(0, 6, 20) / 5
    one, other = torch.from_numpy(embeddings).double().unflatten(0, (20, 2)).unbind(1)
    expected = F.spearman_corrcoef(torch.cosine_similarity(one, other), torch.from_numpy(values))
    found = scores("spearman", np.repeat(values, 2), embeddings, size)
    assert found["spearman"] == pytest.approx(float(expected), abs=1e-6)


def test_spearman_of_a_model_that_gives_similarities():
    targets = normal(30)
    assert scores("spearman", targets, np.exp(targets)[:, None])["spearman"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "message"),
    [([1, 1, 2], "scores 2 samples together, but samples has 3"), ([1, 2, 2, 3], "with the same score")],
)
def test_samples_that_are_no_pairs_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        scores("spearman", np.array(values, float), normal(len(values), 4))


def test_the_metric_follows_from_the_kind_of_labels_or_is_named():
    assert {kind: default_metric(kind) for kind in KINDS} == {
        "classes": "top-1",
        "positions": "top-1",
        "binary": "top-1",
        "multi-label": "f1",
        "soft": "top-1",
        "targets": "mse",
        "pairs": "spearman",
        "boxes": "map",
        "text": "cer",
        "other": None,
    }
    with pytest.raises(
        DataError,
        match=r"--metric psnr is for numbers .* labels of samples are class numbers: use top-1, top-5, f1 or MODULE",
    ):
        running("psnr", LABELS, LOGITS)
    with pytest.raises(
        SettingError, match=r"--metric is 'top-9': it must be top-1, top-5, f1, .* or MODULE:FUNCTION"
    ):
        running("top-9", LABELS, LOGITS)


def test_each_labeled_output_has_its_scores_and_the_first_metric_counts():
    outputs = {"y": LOGITS, "depth": normal(200, 1)}
    labels = {"": LABELS, "depth": normal(200, 1, seed=4)}
    forms = {key: find_form(labels[key], outputs[key or "y"], "samples") for key in labels}
    found = RunningScores(Metrics(("f1", "top-1")), forms, list(outputs))
    found.add(outputs, Batch({"x": normal(200, 2)}, labels, "samples"))
    assert [(score.name, score.output, score.samples) for score in found.results()] == [
        ("f1", "", 200), ("top-1", "", 200), ("mse", "depth", 200)
    ]  # fmt: skip
    assert found.results()[2].value == pytest.approx(((outputs["depth"] - labels["depth"]) ** 2).mean())


@pytest.mark.parametrize("name", ["top-1", "f1", "spearman"])
def test_records_of_processes_can_be_merged(name):
    labels, output = (LABELS, LOGITS) if name != "spearman" else (np.repeat(normal(100), 2), LOGITS)
    parts = []
    for half in (slice(0, 90), slice(90, 200)):
        parts.append(running(name, labels, output))
        for outputs, batch in batches(labels[half], output[half], 32):
            parts[-1].add(outputs, batch)
    first, second = parts
    first.merge([pickle.loads(pickle.dumps(second.records()))])
    (score,) = first.results()
    assert score.samples == 200
    assert score.value == pytest.approx(scores(name, labels, output)[name])


def test_records_do_not_grow_with_the_size_of_a_sample_and_stay_few_for_many_classes():
    labels, output = RANDOM.integers(0, 150, (40, 16, 16)), normal(40, 150, 16, 16)
    found = running("top-1 iou", labels, output)
    for outputs, batch in batches(labels, output, 40):
        found.add(outputs, batch)
    assert [np.shape(records) for _, records in found.records()] == [(40, 2), (1, 450)]


def test_texts_of_scores():
    shown = {
        "top-1": (0.778, "22.20%"),
        "iou": (0.712, "71.20%"),
        "psnr": (31.254, "31.25 dB"),
        "mse": (0.012345, "0.01235"),
    }
    shown |= {"spearman": (0.82412, "0.8241"), "cer": (0.05, "5.00%")}
    assert {name: METRICS[name].text(value) for name, (value, _) in shown.items()} == {
        name: text for name, (_, text) in shown.items()
    }
    assert METRICS["top-1"].measured == "top-1 accuracy" and METRICS["psnr"].drop_text(0.5) == "0.50 dB"
    assert table.score_text({"name": "top-1", "value": 0.75, "samples": 4}) == "25.00%"


def test_a_missing_package_is_named_before_the_work(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(
        MissingPackageError, match="--metric spearman needs torchmetrics, which is not installed"
    ):
        running("spearman", np.repeat(normal(3), 2), normal(6, 4))


def test_a_process_with_half_a_pair_is_refused():
    found = running("spearman", np.repeat(normal(3), 2), normal(6, 4))
    found.add([normal(1, 4)], Batch({"x": normal(1, 4)}, {"": normal(1, 1)}, "samples"))
    with pytest.raises(DataError, match="scores 2 samples together, but samples has 1"):
        found.records()

"""Which answers changed between two models, by class and by sample."""

import base64
import struct

import numpy as np
import pytest

import onnxprune
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.images.thumbnails import thumbnail, thumbnails
from onnxprune.evaluation.answers import KEPT, Answers
from onnxprune.evaluation.comparison import compare
from onnxprune.evaluation.labels import LabelForm
from onnxprune.evaluation.runs import check_runs
from onnxprune.evaluation.sessions import make_session
from tests.builders import cnn, mlp


def compared(first, second, inputs, labels, folder):
    sessions = [
        make_session(onnxprune.prune(model, folder / name, rate=rate, evaluate=False).path, name)
        for name, model, rate in (("a.onnx", *first), ("b.onnx", *second))
    ]
    data = check_runs(sessions[0], Dataset.of(inputs, labels))
    return compare(*sessions, data), [session.run(None, inputs)[0].argmax(1) for session in sessions]


def test_counts_agree_with_the_predictions_of_both_models(tmp_path):
    inputs = {"x": np.random.default_rng(0).random((700, 1, 8, 8), dtype=np.float32)}
    labels = np.arange(700) % 4
    labels[:5] = -100
    evaluation, (old, new) = compared((cnn(), 0.0), (cnn(), 0.9), inputs, labels, tmp_path)
    answers = evaluation.answers
    seen = labels >= 0
    assert answers["classes"] == [
        [
            each,
            (labels == each).sum(),
            ((labels == each) & (old == each)).sum(),
            ((labels == each) & (new == each)).sum(),
        ]
        for each in range(4)
    ]
    assert answers["changed"] == {
        "lost": (seen & (old == labels) & (new != labels)).sum(),
        "gained": (seen & (old != labels) & (new == labels)).sum(),
        "other": (seen & (old != labels) & (new != labels) & (old != new)).sum(),
    }
    assert 0 < len(answers["shown"]) <= sum(KEPT.values())
    for each in answers["shown"]:
        number = each["sample"]
        assert (each["label"], each["baseline"], each["pruned"]) == (labels[number], old[number], new[number])
        assert base64.b64decode(each["picture"]).startswith(b"\x89PNG")
    assert "picture" not in str(evaluation.to_dict()) and "picture" in str(evaluation.to_dict(pictures=True))
    right = sum(row[3] for row in answers["classes"]) / seen.sum()
    assert right == pytest.approx(evaluation.scores[0][1].value)


def test_labels_that_are_no_classes_have_no_answers(tmp_path):
    inputs = {"x": np.random.default_rng(0).random((8, 8), dtype=np.float32)}
    targets = np.random.default_rng(1).random((8, 4), dtype=np.float32)
    evaluation, _ = compared((mlp(), 0.0), (mlp(), 0.5), inputs, targets, tmp_path)
    assert evaluation.answers is None


def test_an_output_without_a_class_for_each_sample_has_no_answers():
    answers = Answers.of({"": LabelForm("classes", "data")}, ["y"])
    batch = Batch({"x": np.zeros((4, 2))}, {"": np.zeros(4, np.int64)})
    for outputs in ([np.zeros((4, 3, 5))], [np.zeros(4)], [[np.zeros(3)]]):
        answers.add([outputs, outputs], batch)
        assert answers.result(Dataset.of({"x": np.zeros((4, 2))})) is None


def test_pictures_stay_out_of_the_metadata_and_counts_of_few_classes_go_in(tmp_path):
    x = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    data = {"x": x, "labels": np.arange(40) % 4}
    report = onnxprune.prune(cnn(), tmp_path / "out.onnx", rate=0.9, eval_data=data).report
    assert report.evaluation["answers"]["shown"]
    text = report.annotations()["onnxprune.evaluation"]
    assert "picture" not in text and '"shown":[]' in text and '"classes":[[0,10,' in text


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 28, 28), (28, 28)), ((3, 32, 32), (32, 32, 3)), ((224, 160, 3), (37, 26, 3))]
)
def test_images_become_small_bytes(shape, size):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = thumbnail(image)
    assert found.shape == size and found.dtype == np.uint8
    assert thumbnail(np.zeros(shape, np.float32)).max() == 0


@pytest.mark.parametrize("shape", [(784,), (128, 768), (4, 16, 16, 16), (3, 4, 4)])
def test_other_inputs_are_no_images(shape):
    assert thumbnail(np.zeros(shape, np.float32)) is None


def test_a_flat_input_is_an_image_where_the_source_says_so():
    assert thumbnail(np.zeros(784, np.float32), (28, 28)).shape == (28, 28)
    assert thumbnail(np.zeros(783, np.float32), (28, 28)) is None


def test_png_files_are_read_by_others(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    from io import BytesIO

    from onnxprune.data.images.png import png_of_levels, png_of_pixels

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(np.array(image_module.open(BytesIO(png_of_pixels(pixels)))), pixels)
    assert np.array_equal(np.array(image_module.open(BytesIO(png_of_pixels(pixels[..., 0])))), pixels[..., 0])
    levels = np.arange(15).reshape(3, 5)
    found = np.array(image_module.open(BytesIO(png_of_levels(levels, (1, 2, 3)))).convert("RGBA"))
    assert np.array_equal(found[..., 3], levels * 17) and (found[..., :3] == (1, 2, 3)).all()
    assert struct.unpack(">II", png_of_levels(levels, (1, 2, 3))[16:24]) == (5, 3)


def test_texts_have_no_picture_in_an_array_of_objects_either():
    texts = np.array(["a", "b", "c"], object)
    assert thumbnails(Dataset.of({"s": texts}, None), [0, 2]) == [None, None]

"""What a job tells of the input model before it starts, and its warnings of wrong inputs and labels."""

import logging

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from tests.builders import floats, mlp, model_of, normal

CLASSES = 4
SIZE = 8


def by_brightness():
    """A classifier of images in [0, 1] by their mean: 0 to 0.25 is class 0, and so on."""
    # The score of class k is k * mean - (k^2 + k) / 8: the largest where the mean is between k / 4 and (k + 1) / 4.
    scores = np.arange(CLASSES, dtype=np.float32)[None]
    weights = {"scores": scores, "bias": -(scores[0] ** 2 + scores[0]) / 8}
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
        helper.make_node("Gemm", ["mean", "scores", "bias"], ["y"]),
    ]
    return model_of(nodes, [floats("x", "N", 1, SIZE, SIZE)], [floats("y", "N", CLASSES)], weights)


def photos(folder, count=80, shift=0):
    """Gray images in a folder for each class."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for number in range(count):
        label = number % CLASSES
        level = 64 * label + rng.integers(20, 44)
        place = folder / str((label + shift) % CLASSES)
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((SIZE, SIZE), level, np.uint8)).save(place / f"{number}.png")
    return str(folder)


def looked(caplog, **settings):
    with caplog.at_level(logging.INFO, "onnxprune"):
        result = onnxprune.prune(by_brightness(), rate=0, **settings)
    return [record.getMessage() for record in caplog.records], result.report


def test_the_input_models_error_comes_first_and_nothing_is_wrong(tmp_path, caplog):
    messages, report = looked(caplog, eval_data=photos(tmp_path / "photos"))
    assert messages == [f"The input model on 80 samples of {tmp_path}/photos: top-1 error 0.00%."]
    assert any("The shape of the input decided how the images" in note for note in report.notes)
    # What was guessed is kept, as the text that has the same effect.
    assert "scale:1/255" in report.settings["transform"]
    again = onnxprune.prune(
        by_brightness(), rate=0, eval_data=str(tmp_path / "photos"), transform=report.settings["transform"]
    )
    assert again.report.evaluation["baseline"]["value"] == 1


def test_another_transform_that_is_far_better_is_named(tmp_path, caplog):
    messages, report = looked(caplog, eval_data=photos(tmp_path / "photos"), transform="raw")
    (warning,) = (message for message in messages if "--transform" in message)
    assert (
        "is right for 100.0% of" in warning
        and "with --transform unit, for 25.0% as it is read now" in warning
    )
    assert warning in report.notes and report.evaluation["baseline"]["value"] == 0.25


def test_labels_that_are_shifted_by_one_are_told_with_the_offset_to_give(tmp_path, caplog):
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    levels = (labels + 1 + rng.uniform(0.2, 0.8, 90)) / CLASSES
    data = {"x": np.ones((90, 1, SIZE, SIZE), np.float32) * levels[:, None, None, None].astype(np.float32)}
    messages, _ = looked(caplog, eval_data=data | {"labels": labels})
    assert "look shifted by one: 100.0% are right with --label-offset 1, 0.0% as they are" in messages[1]
    caplog.clear()
    messages, _ = looked(caplog, eval_data=data | {"labels": labels}, label_offset=1)
    assert len(messages) == 1
    caplog.clear()
    messages, _ = looked(caplog, eval_data=data | {"labels": labels + 2}, label_offset=0 - 2)
    assert "with --label-offset -1, 0.0%" in messages[1]


def test_a_model_near_chance_is_told_but_not_on_a_handful_of_samples(caplog):
    rng = np.random.default_rng(0)
    for count, warned in ((400, True), (8, False)):
        caplog.clear()
        data = {"x": normal(count, 8), "labels": rng.integers(0, 4, count)}
        with caplog.at_level(logging.INFO, "onnxprune"):
            onnxprune.prune(mlp(), rate=0, eval_data=data)
        assert any("near chance" in record.getMessage() for record in caplog.records) == warned


def test_nothing_is_told_without_labels(caplog):
    with caplog.at_level(logging.INFO, "onnxprune"):
        onnxprune.prune(mlp(), rate=0, eval_data={"x": normal(60, 8)})
    assert not caplog.records


def test_a_search_tells_it_in_its_first_trial_and_with_its_result(caplog, tmp_path):
    onnx.save(mlp(), tmp_path / "in.onnx")
    labels = np.arange(200) % 4
    data = {"x": normal(200, 8) + labels[:, None].astype(np.float32), "labels": labels}
    with caplog.at_level(logging.INFO, "onnxprune"):
        onnxprune.prune(tmp_path / "in.onnx", max_loss=0.9, data=data, epochs=4, max_drop=0.9)
    told = [record.getMessage() for record in caplog.records if "The input model on" in record.getMessage()]
    assert len(told) == 2


def test_pairs_are_looked_at_whole(caplog):
    x, scores = normal(2000, 8), np.repeat(np.linspace(0, 1, 1000, dtype=np.float32), 2)
    with caplog.at_level(logging.INFO, "onnxprune"):
        onnxprune.prune(mlp(), rate=0, eval_data={"x": x, "labels": scores}, metric="spearman")
    assert "The input model on 512 samples of <dict>: Spearman" in caplog.records[0].getMessage()

"""Jobs with few samples, no labels and many classes: calibrated on them, not trained."""

import numpy as np
import pytest

import onnxprune
from tests.builders import initializer, mlp, normal

CLASSES, SAMPLES = 150, 120
X = normal(SAMPLES, 16, seed=7)


def model(classes=CLASSES):
    return mlp(inputs=16, hidden=32, outputs=classes)


def pruned(classes=CLASSES, **settings):
    return onnxprune.prune(model(classes), rate=0.5, eval_data={"x": normal(50, 16, seed=8)}, **settings)


def test_a_training_that_would_be_of_no_use_is_left_out_and_the_layers_are_fitted():
    result = pruned(data={"x": X}, time="1m", format="dense", remove_dead=False)
    assert not result.report.fine_tuning
    assert any("--epochs N trains all the same" in note for note in result.report.notes)
    assert not any("add --data" in note for note in result.report.notes)
    assert result.report.settings["criterion"] == "second-order" and result.report.settings["data"] is None
    before, after = (initializer(each, "fc1.weight") for each in (model(), result.model))
    assert not (after == before)[after != 0].all()


@pytest.mark.parametrize(
    ("classes", "settings"),
    [
        (CLASSES, {"epochs": 2}),
        (CLASSES, {"learning_rate": 1e-3, "time": "5s"}),
        (CLASSES, {"criterion": "magnitude", "time": "5s"}),
        (40, {"time": "5s"}),
    ],
)
def test_it_trains_where_that_is_asked_for_or_the_classes_are_seen(classes, settings):
    result = pruned(classes, data={"x": X}, **settings)
    assert result.report.fine_tuning
    assert not any("trains all the same" in note for note in result.report.notes)


def test_labels_are_trained_on():
    labels = np.arange(SAMPLES) % CLASSES
    assert pruned(data={"x": X, "labels": labels}, time="5s").report.fine_tuning

"""Metrics of classes: top-k accuracy, F1 and intersection over union."""

from __future__ import annotations

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evaluation.labels import IGNORED, LabelForm
from onnxprune.evaluation.predictions import Predictions

# Counts by class of more numbers than this are kept for blocks of samples.
SAMPLE_COUNTS = 300
BLOCK_SAMPLES = 256
# Outputs that top-5 looks at.
TOP = 5


def predicted(found: Predictions) -> np.ndarray:
    """The predictions, of the shape of `truth`: class numbers, or bools for labels of 0 and 1."""
    output, form = np.asarray(found.output), found.form
    if form.kind in ("binary", "multi-label"):
        return (output > form.threshold).reshape(found.labels.shape)
    classes = output if form.axis is None else output.argmax(form.axis)
    if classes.shape != truth(found).shape:
        raise DataError(
            f"the labels of {form.data} {list(found.labels.shape)} do not fit the output {list(output.shape)}: give "
            "one class for each position of the output"
        )
    return classes


def truth(found: Predictions) -> np.ndarray:
    """The labels, of probabilities of the classes the likeliest class."""
    return np.asarray(found.labels.argmax(found.form.axis)) if found.form.kind == "soft" else found.labels


def top_1(found: Predictions) -> np.ndarray:
    """Rows (right, counted) of a sample's labels."""
    return _shares(predicted(found) == truth(found), _counted(found))


def top_5(found: Predictions) -> np.ndarray:
    """Rows (right, counted) of a sample's labels: whether one of the five largest outputs is of the label."""
    axis = found.form.axis
    if axis is None:
        raise DataError(
            f"--metric top-5 needs an output for each class, but the model's output {list(found.output.shape)} are "
            "class numbers: use --metric top-1"
        )
    scores = np.moveaxis(np.asarray(found.output), axis, -1)
    if scores.shape[-1] <= TOP:
        raise DataError(
            f"--metric top-5 is always right for {scores.shape[-1]} classes, as {found.form.data} has: use top-1"
        )
    counted = _counted(found)
    labels = np.where(counted, truth(found), 0)[..., None]
    # Counting the larger ones needs no sorting; of equal outputs, the first classes come first.
    own = np.take_along_axis(scores, labels, -1)
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[-1]) < labels))
    right = (before.sum(-1) < TOP) & ~np.isnan(own[..., 0])
    return _shares(right, counted)


def _counted(found: Predictions) -> np.ndarray:
    return truth(found) != IGNORED


def _shares(right: np.ndarray, counted: np.ndarray) -> np.ndarray:
    rows = [(right & counted).reshape(len(right), -1).sum(1), counted.reshape(len(right), -1).sum(1)]
    return np.stack(rows, 1)


def confusion(found: Predictions) -> np.ndarray:
    """What F1 and IoU count: (label, prediction) of a sample with one class, else rows of counts by class.

    Counts (class, 3) of the labels and predictions of a class: both, labels, predictions. Those of many classes are
    sums over a block of samples.
    """
    labels, classes, form = found.labels, predicted(found), found.form
    if form.kind == "classes":
        return np.stack([labels, classes], 1)[labels != IGNORED].astype(np.int32)
    if form.kind == "positions" and form.axis is None:
        raise DataError(
            f"F1 and IoU of masks need the number of classes, but the output {list(classes.shape)} consists of class "
            "numbers: use --metric top-1"
        )
    samples = [_counts(*pair, form) for pair in zip(labels, classes, strict=True)]
    rows = np.stack(samples).reshape(len(samples), -1)
    if rows.shape[1] <= SAMPLE_COUNTS:
        return rows
    return np.add.reduceat(rows, np.arange(0, len(rows), BLOCK_SAMPLES), 0)


def f1_counts(found: Predictions) -> np.ndarray:
    """As `confusion`, but of class 1 alone for labels of 0 and 1."""
    records = confusion(found)
    return records[:, 3:] if found.form.kind == "binary" else records


def _counts(labels: np.ndarray, classes: np.ndarray, form: LabelForm) -> np.ndarray:
    """Counts (class, 3) of one sample; binary labels are two classes."""
    counted = labels != IGNORED
    if form.kind == "multi-label":
        given, guessed = labels == 1, classes & counted
        return np.stack(
            [part.reshape(len(labels), -1).sum(1) for part in (given & guessed, given, guessed)], 1
        )
    size = 2 if form.kind == "binary" else form.classes
    given, guessed = (part[counted].astype(np.int64) for part in (labels, classes))
    parts = (given[given == guessed], given, guessed)
    return np.stack([np.bincount(part, minlength=size) for part in parts], 1)


def _by_class(records: np.ndarray) -> np.ndarray:
    """Counts (class, 3) of all records."""
    if not len(records):
        return np.zeros((1, 3), np.int64)
    if records.shape[1] != 2:
        return records.sum(0, dtype=np.int64).reshape(-1, 3)
    labels, classes = records.T
    size = int(records.max()) + 1
    parts = (labels[labels == classes], labels, classes)
    return np.stack([np.bincount(part, minlength=size) for part in parts], 1)


def f1(records: np.ndarray) -> float:
    """The mean over classes of 2 |both| / (|labels| + |predictions|), without classes that are in neither."""
    hits, labels, classes = _by_class(records).T
    sums = labels + classes
    return float((2 * hits[sums > 0] / sums[sums > 0]).mean()) if sums.any() else float("nan")


def iou(records: np.ndarray) -> float:
    """The mean over classes of |both| / |either|, without classes that are in neither."""
    hits, labels, classes = _by_class(records).T
    either = labels + classes - hits
    return float((hits[either > 0] / either[either > 0]).mean()) if either.any() else float("nan")

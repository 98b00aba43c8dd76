"""Boxes: the forms of a detector's outputs, suppression, and mean average precision."""

import sys
import types

import numpy as np
import pytest

from onnxprune.data.batch import Batch
from onnxprune.errors import DataError
from onnxprune.evaluation.detections import detections, suppress
from onnxprune.evaluation.forms import find_form
from onnxprune.evaluation.scores import Metrics, RunningScores
from tests.builders import normal

# Two images of 40 x 80 pixels; the second has one box.
LABELS = np.array(
    [[[0, 0.25, 0.5, 0.25, 0.5], [1, 0.75, 0.5, 0.25, 0.5]], [[1, 0.5, 0.5, 0.5, 0.5], [-1, 0, 0, 0, 0]]],
    np.float32,
)
CORNERS = [[10, 10, 30, 30], [50, 10, 70, 30]], [[20, 10, 60, 30]]
ROWS = np.array(
    [[[10, 10, 30, 30, 0.9, 0], [50, 10, 70, 30, 0.8, 1]], [[20, 10, 60, 30, 0.7, 1], [0, 0, 9, 9, 0, 0]]],
    np.float32,
)


def value(outputs, labels=LABELS, **more):
    first = next(iter(outputs.values()))
    form = find_form(labels, first, "samples")
    found = RunningScores(Metrics(**more), {"": form}, list(outputs))
    for one in range(len(labels)):
        part = slice(one, one + 1)
        batch = Batch({"x": np.zeros((1, 3, 40, 80), np.float32)}, {"": labels[part]}, "samples")
        found.add({name: array[part] for name, array in outputs.items()}, batch)
    (score,) = found.results()
    assert score.name == "map" and score.samples == len(labels)
    return score.value


def test_boxes_at_their_place_are_found():
    assert value({"y": ROWS}) == pytest.approx(1)


def test_a_wrong_class_and_a_moved_box_count_as_coco_counts_them():
    wrong = ROWS.copy()
    # An overlap of 0.825 passes the seven thresholds from 0.5 to 0.8.
    wrong[0, 0, 2] = 26.5
    assert value({"y": wrong}) == pytest.approx((7 / 10 + 1) / 2)
    wrong[0, 1, 5] = 0
    # Class 1: one of two boxes found, precision 1 up to a recall of one half (51 of 101 points).
    assert value({"y": wrong}) == pytest.approx((7 / 10 + 51 / 101) / 2)


def raw(rows, anchors=20):
    """Rows x1, y1, x2, y2, score, class as a raw output (N, 4 + 2, A), with a worse copy of each box."""
    made = np.zeros((len(rows), 6, anchors), np.float32)
    for image, found in zip(made, rows, strict=True):
        for at, (x1, y1, x2, y2, score, kind) in enumerate(found):
            image[:4, [at, at + 10]] = [[(x1 + x2) / 2], [(y1 + y2) / 2], [x2 - x1], [y2 - y1]]
            image[4 + int(kind), [at, at + 10]] = score, score / 2
    return made


def test_a_raw_output_is_suppressed_within_each_class():
    found = detections({"y": raw(ROWS)})
    np.testing.assert_allclose(found[0].boxes, CORNERS[0])
    assert found[0].classes.tolist() == [0, 1] and found[1].classes.tolist() == [1]
    assert value({"y": raw(ROWS)}) == pytest.approx(1)


def overlap(one, other):
    """Intersection over union of two boxes x1, y1, x2, y2."""
    width, height = (min(one[end], other[end]) - max(one[end - 2], other[end - 2]) for end in (2, 3))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    shared = max(width, 0) * max(height, 0)
    return shared / (sum(areas) - shared)


def test_a_box_is_kept_unless_a_better_one_that_is_kept_overlaps_it():
    boxes = np.abs(normal(60, 4)) * 9
    boxes[:, 2:] += boxes[:, :2] + 1
    kept = []
    for at, box in enumerate(boxes):
        if all(overlap(box, boxes[better]) <= 0.3 for better in kept):
            kept.append(at)
    assert suppress(boxes, 0.3).tolist() == kept and 2 < len(kept) < 50


@pytest.mark.parametrize("names", [("boxes", "labels", "scores"), ("a", "b", "c")])
def test_boxes_labels_and_scores_are_told_by_names_or_types(names):
    parts = (ROWS[..., :4], ROWS[..., 5].astype(np.int64), ROWS[..., 4])
    assert value(dict(zip(names, parts, strict=True))) == pytest.approx(1)
    (image,) = detections(dict(zip(names, (part[0] for part in parts), strict=True)))
    np.testing.assert_array_equal(image.boxes, CORNERS[0])


def test_a_function_may_make_the_detections(monkeypatch):
    made = types.ModuleType("own")
    made.boxes = lambda outputs: [
        {"boxes": image[:, :4], "scores": image[:, 4], "labels": image[:, 5]} for image in outputs["y"] / 2
    ]
    made.other = lambda outputs: [{"boxes": []}] * len(outputs["y"])
    monkeypatch.setitem(sys.modules, "own", made)
    assert value({"y": ROWS * 2}, postprocess="own:boxes") == pytest.approx(1)
    with pytest.raises(DataError, match=r"needs one dict\(boxes, scores, labels\) for each sample"):
        value({"y": ROWS}, postprocess="own:other")


# No detections, masks beside them, and keypoints in pixels below the scores.
@pytest.mark.parametrize(
    "outputs",
    [
        {"y": normal(2, 9)},
        {"y": np.zeros((1, 38, 90)), "masks": np.zeros((1, 32, 9, 9))},
        {"y": np.full((1, 56, 90), 40.0)},
    ],
)
def test_outputs_that_are_no_detections_are_refused(outputs):
    with pytest.raises(
        DataError, match=r"--metric map cannot read the outputs y \[.*: it reads .*--postprocess"
    ):
        detections(outputs)

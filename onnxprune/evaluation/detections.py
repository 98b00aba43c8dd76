"""The forms of a detector's outputs, and how each becomes boxes with scores and classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evaluation.forms import raw_classes

# As in the evaluation of ultralytics' detectors.
OVERLAP = 0.7
LEAST_SCORE = 0.001
MOST_CANDIDATES = 30_000
MOST_DETECTIONS = 300


@dataclass(frozen=True)
class Detections:
    """The boxes (M, 4) of one image, x1 y1 x2 y2 in pixels of the model's input, with scores and classes (M,)."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    @classmethod
    def best(cls, boxes: Any, scores: Any, classes: Any) -> Detections:
        """The detections of highest score, at most `MOST_DETECTIONS`."""
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        scores, classes = np.asarray(scores, np.float32).reshape(-1), np.asarray(classes).reshape(-1)
        if not len(boxes) == len(scores) == len(classes):
            raise DataError(
                f"detections have {len(boxes)} boxes, {len(scores)} scores and {len(classes)} labels: give one score "
                "and one label for each box"
            )
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > LEAST_SCORE][:MOST_DETECTIONS]
        return cls(boxes[order], scores[order], classes[order].astype(np.int64))


Outputs = Mapping[str, Any]


def _end_to_end(outputs: Outputs) -> list[Detections] | None:
    """(N, M, 6): x1, y1, x2, y2, score, class."""
    rows = next(iter(outputs.values()))
    if not isinstance(rows, np.ndarray) or rows.ndim != 3 or rows.shape[-1] != 6:
        return None
    return [Detections.best(image[:, :4], image[:, 4], image[:, 5]) for image in rows]


def _raw(outputs: Outputs) -> list[Detections] | None:
    """(N, 4 + C, A), as of YOLOv8: center x, center y, width, height, and a score of each class.

    Models for masks or keypoints have further rows, which are not in [0, 1], and further outputs.
    """
    rows = next(iter(outputs.values()))
    if len(outputs) > 1 or not isinstance(rows, np.ndarray) or not raw_classes(rows):
        return None
    if rows[:, 4:].min() < 0 or rows[:, 4:].max() > 1:
        return None
    return [_suppressed(image) for image in rows.astype(np.float32)]


def _suppressed(image: np.ndarray) -> Detections:
    """Detections of (4 + C, A) after non-maximum suppression within each class."""
    scores = image[4:]
    classes, anchors = np.nonzero(scores > LEAST_SCORE)
    values = scores[classes, anchors]
    order = np.argsort(-values, kind="stable")[:MOST_CANDIDATES]
    classes, anchors, values = classes[order], anchors[order], values[order]
    center, size = image[:2, anchors], image[2:4, anchors]
    boxes = np.concatenate([center - size / 2, center + size / 2]).T
    parts = [np.flatnonzero(classes == one) for one in np.unique(classes)]
    kept = np.concatenate([part[suppress(boxes[part])] for part in parts]) if parts else np.zeros(0, np.int64)
    return Detections.best(boxes[kept], values[kept], classes[kept])


def suppress(boxes: np.ndarray, overlap: float = OVERLAP) -> np.ndarray:
    """The numbers of boxes (M, 4), best first, that overlap no better one that is kept by more than `overlap`."""
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    kept: list[int] = []
    remaining = np.arange(len(boxes))
    while len(remaining) and len(kept) < MOST_DETECTIONS:
        best, remaining = remaining[0], remaining[1:]
        kept.append(best)
        corners = np.maximum(boxes[best, :2], boxes[remaining, :2])
        ends = np.minimum(boxes[best, 2:], boxes[remaining, 2:])
        shared = (ends - corners).clip(0).prod(1)
        remaining = remaining[shared <= overlap * (areas[best] + areas[remaining] - shared)]
    return np.array(kept, np.int64)


def _by_name(outputs: Outputs) -> list[Detections] | None:
    """Boxes, labels and scores as outputs, as of torchvision: of one image, or with a first axis of images."""
    found = {part: [array for name, array in outputs.items() if part in name.lower()] for part in PARTS}
    if any(len(arrays) != 1 for arrays in found.values()):
        found = {part: [array for array in outputs.values() if fits(array)] for part, fits in PARTS.items()}
    if any(len(arrays) != 1 for arrays in found.values()):
        return None
    boxes, scores, labels = (found[part][0] for part in ("box", "score", "label"))
    if boxes.ndim == 2:
        return [Detections.best(boxes, scores, labels)]
    return [Detections.best(*image) for image in zip(boxes, scores, labels, strict=True)]


# Outputs of a detector by a part of their names, else by these properties.
PARTS: Mapping[str, Callable[[Any], bool]] = {
    "box": lambda array: array.dtype.kind == "f" and array.ndim in (2, 3) and array.shape[-1] == 4,
    "score": lambda array: array.dtype.kind == "f" and not (array.ndim in (2, 3) and array.shape[-1] == 4),
    "label": lambda array: array.dtype.kind in "iu",
}

FORMS: Mapping[str, Callable[[Outputs], list[Detections] | None]] = {
    "(N, M, 6) of x1, y1, x2, y2, score, class": _end_to_end,
    "(N, 4 + C, A) of YOLOv8 with class scores in [0, 1]": _raw,
    "boxes, labels and scores of torchvision": _by_name,
}
"""How to read outputs of each form; None if they are not of it."""


def detections(outputs: Outputs) -> list[Detections]:
    """The detections of each image of a batch.

    Raises:
        DataError: the outputs are of no known form.
    """
    for read in FORMS.values():
        found = read(outputs)
        if found is not None:
            return found
    shapes = ", ".join(
        f"{name} {list(array.shape) if isinstance(array, np.ndarray) else 'of no single array'}"
        for name, array in outputs.items()
    )
    raise DataError(
        f"--metric map cannot read the outputs {shapes}: it reads {', '.join(FORMS)}; for others, give --postprocess "
        "MODULE:FUNCTION that makes one dict(boxes, scores, labels) for each sample"
    )

"""The metric of detectors: COCO's mean average precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxprune.errors import DataError
from onnxprune.evaluation.detections import Detections, detections
from onnxprune.evaluation.library import import_torchmetrics
from onnxprune.evaluation.predictions import Predictions

Image = tuple[Detections, np.ndarray, np.ndarray]
"""The detections of an image, and the boxes (M, 4) and classes (M,) of its labels."""


def images(found: Predictions) -> list[Image]:
    """The detections and the labeled boxes of each image, in pixels of the model's input."""
    given = found.output
    made = [_given(sample) for sample in given] if isinstance(given, list) else detections(found.outputs)
    if len(made) != len(found):
        raise DataError(
            f"--metric map has detections of {len(made)} images for {len(found)} samples of {found.form.data}: give "
            "outputs with a first axis of samples, or a model for one image a batch of one"
        )
    rows, columns = found.image_size()
    records = []
    for image, labels in zip(made, found.labels, strict=True):
        used = labels[labels[:, 0] >= 0]
        half = used[:, 3:] / 2
        boxes = np.concatenate([used[:, 1:3] - half, used[:, 1:3] + half], 1)
        records.append((image, boxes * (columns, rows, columns, rows), used[:, 0].astype(np.int64)))
    return records


def _given(sample: Any) -> Detections:
    parts = ("boxes", "scores", "labels")
    if not isinstance(sample, Mapping) or any(part not in sample for part in parts):
        raise DataError(
            "--metric map needs one dict(boxes, scores, labels) for each sample from --postprocess, but it made a "
            f"{type(sample).__name__}"
        )
    return Detections.best(*(sample[part] for part in parts))


def mean_average_precision(records: list[Image]) -> float:
    """The mean over classes and overlaps of 0.5 to 0.95 of the average precision, by pycocotools."""
    import_torchmetrics("--metric map")
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox", backend="pycocotools")
    metric.warn_on_many_detections = False
    metric.update(
        [
            {
                "boxes": torch.from_numpy(image.boxes),
                "scores": torch.from_numpy(image.scores),
                "labels": torch.from_numpy(image.classes),
            }
            for image, _, _ in records
        ],
        [
            {"boxes": torch.from_numpy(boxes.astype(np.float32)), "labels": torch.from_numpy(classes)}
            for _, boxes, classes in records
        ],
    )
    return float(metric.compute()["map"])

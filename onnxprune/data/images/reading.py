"""Reading samples with augmentation: on images as they are decoded, else on arrays that look like images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.images.augment import Augmentation, augment
from onnxprune.data.images.pixels import COUNTS
from onnxprune.data.ragged import by_shape, first_shape
from onnxprune.data.specs import InputSpec
from onnxprune.errors import SettingError


def read_augmented(
    data: Dataset,
    numbers: np.ndarray,
    augmentation: Augmentation,
    seeds: Sequence[int],
    specs: Sequence[InputSpec],
) -> Batch:
    """The samples with these numbers, each changed as its seed says."""
    if hasattr(data.source, "read_augmented"):
        return data.as_batch(data.source.read_augmented(numbers, augmentation, seeds), numbers)
    return augmented(data.as_batch(data.source.read(numbers), numbers), augmentation, seeds, specs)


def augmented(
    batch: Batch, augmentation: Augmentation, seeds: Sequence[int], specs: Sequence[InputSpec]
) -> Batch:
    """A batch whose image is changed, with masks and boxes among its labels.

    Raises:
        SettingError: no input, or more than one, looks like images.
    """
    spec, axis = image_input(batch, specs)
    given = batch.inputs[spec.name]
    images = by_shape(lambda rows: np.moveaxis(rows, axis, -1), given)
    changed, labels = augment(augmentation, images, seeds, batch.labels)

    def moved_back(rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(rows, -1, axis)).astype(spec.dtype, copy=False)

    changed = by_shape(moved_back, changed)
    return replace(batch, inputs=batch.inputs | {spec.name: changed}, labels=labels)


def image_input(batch: Batch, specs: Sequence[InputSpec]) -> tuple[InputSpec, int]:
    """The input that looks like images, (N, 3, H, W) or (N, H, W, 3), and its color axis.

    Raises:
        SettingError: there is none, or more than one.
    """
    found = [
        (spec, axis)
        for spec in specs
        if len(shape := (len(batch), *first_shape(batch.inputs[spec.name]))) == 4
        and (axis := next((axis for axis in (1, 3) if shape[axis] in COUNTS), None))
    ]
    if len(found) != 1:
        raise SettingError(
            f"--augment is for one image input, of shape [N, C, H, W] or [N, H, W, C]; the model has {len(found)}: "
            "augment the data in a MODULE:FUNCTION instead"
        )
    return found[0]

"""Small pictures of samples, for a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.data.dataset import Dataset
from onnxprune.data.images.pixels import COUNTS
from onnxprune.data.images.png import png_of_pixels

# The longest side of a thumbnail, and the shortest of what can be an image, in pixels.
PIXELS, LEAST = 40, 8


def thumbnails(data: Dataset, places: Sequence[int]) -> list[bytes | None]:
    """PNG files of the samples at these ascending places; None of a sample whose inputs are no image.

    Those of a sequential source are not read again.
    """
    if data.source.sequential or not places:
        return [None] * len(places)
    batch = data.take(np.asarray(places)).read()
    inputs = [batch.at(np.array([place])).inputs.values() for place in range(len(places))]
    # An element of an array of objects, such as texts, is no array.
    images = [
        [thumbnail(np.asarray(array[0]), data.source.image_shape) for array in arrays] for arrays in inputs
    ]
    return [next((png_of_pixels(image) for image in found if image is not None), None) for found in images]


def thumbnail(sample: np.ndarray, shape: Sequence[int] | None = None) -> np.ndarray | None:
    """A sample as uint8 gray levels (H, W) or colors (H, W, 3), at most `PIXELS` a side; None if it is no image.

    Images are (C, H, W) or (H, W, C); `shape`: of images that the source has flattened.
    """
    if shape is not None and sample.ndim < len(shape) and sample.size == math.prod(shape):
        sample = sample.reshape(shape)
        sample = sample[None] if sample.ndim == 2 else sample
    if sample.ndim != 3 or sample.dtype.kind not in "fu":
        return None
    if sample.shape[0] in COUNTS:
        sample = np.moveaxis(sample, 0, -1)
    if sample.shape[2] not in COUNTS or min(sample.shape[:2]) < LEAST:
        return None
    pixels = _shrunk(_bytes(sample))
    return pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]


def _bytes(image: np.ndarray) -> np.ndarray:
    """Values from 0 to 255: bytes as they are, 0 to 1 scaled, others stretched over their range."""
    if image.dtype == np.uint8:
        return image.astype(np.float32)
    image = np.nan_to_num(image.astype(np.float32))
    low, high = float(image.min()), float(image.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and 1 < high <= 255:
        low, high = 0.0, 255.0
    return (image - low) * (255 / (high - low or 1.0))


def _shrunk(image: np.ndarray) -> np.ndarray:
    """The means of square blocks, so that no side is longer than `PIXELS`; uint8."""
    block = math.ceil(max(image.shape[:2]) / PIXELS)
    if block > 1 and block <= min(image.shape[:2]):
        rows, columns = (side // block for side in image.shape[:2])
        cut = image[: rows * block, : columns * block].reshape(rows, block, columns, block, -1)
        image = cut.mean((1, 3))
    return np.asarray(image.round().clip(0, 255).astype(np.uint8))

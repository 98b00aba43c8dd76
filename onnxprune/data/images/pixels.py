"""Pixels of images, as PIL or as arrays: channels, bytes, and the axis of the channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Channels:
    """How many channels there are, and the mode of PIL that has them."""

    count: int
    mode: str


# The first of a count is what an input with so many channels is taken for.
CHANNELS = {
    "gray": Channels(1, "L"),
    "rgb": Channels(3, "RGB"),
    "bgr": Channels(3, "RGB"),
    "rgba": Channels(4, "RGBA"),
}
COUNTS = {channels.count for channels in CHANNELS.values()}
# ITU-R 601-2 luma as PIL computes it, in 1/65536.
LUMA = np.array([19595, 38470, 7471], np.uint32)
LUMA_HALF, LUMA_BITS = 0x8000, 16


def image_pixels(image: Image.Image, channels: str) -> Image.Image:
    """An image in the mode of these channels (bgr still as RGB); alpha is dropped, 16 bits become 8.

    Raises:
        DataError: its pixels are floats, which have no known range.
    """
    if image.mode == "F":
        raise DataError("an image with floats as pixels has no known range: convert it to 8 bits")
    if image.mode.startswith("I"):
        from PIL import Image

        # PIL clips 16 bits instead of scaling them.
        values = np.asarray(image)
        image = Image.fromarray((np.clip(values, 0, 65535).astype(np.uint16) >> 8).astype(np.uint8))
    mode = CHANNELS[channels].mode
    return image if image.mode == mode else image.convert(mode)


def planes_last(array: np.ndarray, planes_first: bool) -> np.ndarray:
    """Images (n, H, W), (n, H, W, C) or (n, C, H, W) as (n, H, W, C); `planes_first`: where both could be.

    Raises:
        DataError: no axis has 1, 3 or 4 channels.
    """
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 4:
        first, last = array.shape[1] in COUNTS, array.shape[3] in COUNTS
        if first and (planes_first or not last):
            return array.transpose(0, 2, 3, 1)
        if last:
            return array
    raise DataError(
        f"an array of shape {array.shape} has no images: give (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 "
        "channels"
    )


def as_bytes(images: np.ndarray, name: str) -> np.ndarray:
    """Images as uint8; floats stay as they are.

    Raises:
        DataError: whole numbers beyond 0 to 255, or other types.
    """
    if images.dtype == np.uint8 or images.dtype.kind == "f":
        return images
    if images.dtype.kind not in "iu" or (images.size and (images.min() < 0 or images.max() > 255)):
        raise DataError(
            f"images for {name!r} are {images.dtype} beyond 0 to 255: give pixels as uint8, or floats"
        )
    return images.astype(np.uint8)


def change_channels(images: np.ndarray, channels: str) -> np.ndarray:
    """Images (n, H, W, C) as gray, rgb(a) or, from those, as these channels; gray is repeated, alpha dropped."""
    want = CHANNELS[channels].count
    have = images.shape[3]
    if have == 4 and want < 4:
        images, have = images[..., :3], 3
    if have == 1 and want > 1:
        images, have = np.repeat(images, 3, 3), 3
    if have == 3 and want == 1:
        if images.dtype == np.uint8:
            images = (((images.astype(np.uint32) @ LUMA) + LUMA_HALF) >> LUMA_BITS).astype(np.uint8)[
                ..., None
            ]
        else:
            images = (images @ (LUMA / (1 << LUMA_BITS)).astype(images.dtype))[..., None]
    if have == 3 and want == 4:
        opaque = 255 if images.dtype == np.uint8 else images.max(initial=1)
        images = np.concatenate([images, np.full_like(images[..., :1], opaque)], 3)
    return images[..., ::-1] if channels == "bgr" else images

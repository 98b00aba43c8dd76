"""How images are resized, cropped and padded, and how the boxes on them move along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Size = tuple[int, int]
"""Height and width in pixels."""

OpenSize = tuple[int | None, int | None]
"""Height and width in pixels; None: any."""

# The share of a resized image that evaluation on ImageNet keeps: 224 of 256 pixels.
KEPT = 0.875
# Up to here images are as small as they were made, as those of CIFAR and MNIST, and keep their border.
SMALL = 64
# The gray of the border around images in a letterbox (Ultralytics).
GRAY = 114
# Sides of boxes below this, relative to the image, are what a crop left of a box beyond it.
LEAST_SIDE = 1e-4


@dataclass(frozen=True)
class Move:
    """An image is scaled to `scaled`, then cut to a window of `size` at (`top`, `left`), which may reach beyond it."""

    scaled: Size
    top: int
    left: int
    size: Size

    def image(self, image: Image.Image) -> Image.Image:
        """The image with bilinear filtering and antialiasing; gray where the window reaches beyond it."""
        from PIL import Image

        height, width = self.scaled
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        if (self.top, self.left, self.size) == (0, 0, self.scaled):
            return image
        if self.inside():
            return image.crop((self.left, self.top, self.left + self.size[1], self.top + self.size[0]))
        canvas = Image.new(image.mode, self.size[::-1], (GRAY,) * len(image.getbands()))
        canvas.paste(image, (-self.left, -self.top))
        return canvas

    def inside(self) -> bool:
        """Whether the window lies in the image."""
        spare = (self.scaled[0] - self.top - self.size[0], self.scaled[1] - self.left - self.size[1])
        return min(self.top, self.left, *spare) >= 0

    def corners(self, corners: np.ndarray) -> np.ndarray:
        """Boxes (M, 4) as x1, y1, x2, y2 relative to the image, now relative to the window and within it."""
        scale = np.tile(np.array(self.scaled[::-1], np.float64), 2)
        start = np.tile(np.array([self.left, self.top], np.float64), 2)
        return np.clip((corners * scale - start) / np.tile(np.array(self.size[::-1], np.float64), 2), 0, 1)


@dataclass(frozen=True)
class Step:
    """A step by name and size: () is not known yet, (n,) the shorter side, (height, width) both."""

    name: str
    size: tuple[int, ...] = ()

    def __str__(self) -> str:
        sizes = self.size
        if len(sizes) == 2 and sizes[0] == sizes[1] and self.name in SQUARE:
            sizes = sizes[:1]
        return f"{self.name}:{'x'.join(map(str, sizes))}" if sizes else self.name

    def move(self, size: Size) -> Move:
        """What it does to an image of this size."""
        return STEPS[self.name](size, self.size)


def _resize(have: Size, asked: Sequence[int]) -> Move:
    """As torchvision's Resize: one number is the shorter side, the longer one is rounded down."""
    if len(asked) == 2:
        size = (asked[0], asked[1])
    else:
        short, long = min(have), max(have)
        longer = asked[0] * long // short
        size = (asked[0], longer) if have[0] <= have[1] else (longer, asked[0])
    return Move(size, 0, 0, size)


def _crop(have: Size, asked: Sequence[int]) -> Move:
    """As torchvision's CenterCrop, but images are not padded."""
    height, width = asked
    if have[0] < height or have[1] < width:
        raise DataError(
            f"an image of {size_text(have)} is smaller than crop:{size_text((height, width))}: put resize before crop"
        )
    return Move(have, round((have[0] - height) / 2), round((have[1] - width) / 2), (height, width))


def _fit(have: Size, asked: Sequence[int]) -> Move:
    """The middle of an image that is hardly larger than asked, and of a resized image otherwise."""
    height, width = asked
    cover = min(have[0] / height, have[1] / width)
    roomy = max(_roomy(height) / height, _roomy(width) / width)
    if 1 <= cover <= roomy:
        # Of an odd border, the smaller half is above and left, as TensorFlow cuts.
        return Move(have, (have[0] - height) // 2, (have[1] - width) // 2, (height, width))
    target = 1 if min(asked) <= SMALL else roomy
    if have[0] * width == have[1] * height:
        scaled = (round(height * target), round(width * target))
    elif have[0] / height <= have[1] / width:
        scaled = _resize_side(have, 0, round(height * target))
    else:
        scaled = _resize_side(have, 1, round(width * target))
    cut = _crop(scaled, asked)
    return Move(scaled, cut.top, cut.left, cut.size)


def _roomy(side: int) -> int:
    """The side of the image of whose middle `side` pixels are kept: 256 for 224."""
    return round(side / KEPT)


def _resize_side(have: Size, axis: int, side: int) -> Size:
    other = side * have[1 - axis] // have[axis]
    return (side, other) if axis == 0 else (other, side)


def _letterbox(have: Size, asked: Sequence[int]) -> Move:
    """As Ultralytics' LetterBox: the whole image in the middle of a gray one."""
    height, width = asked
    ratio = min(height / have[0], width / have[1])
    scaled = (max(1, round(have[0] * ratio)), max(1, round(have[1] * ratio)))
    top, left = (round((want - got) / 2 - 0.1) for want, got in zip(asked, scaled, strict=True))
    return Move(scaled, -top, -left, (height, width))


STEPS: dict[str, Callable[[Size, Sequence[int]], Move]] = {
    "resize": _resize,
    "crop": _crop,
    "fit": _fit,
    "letterbox": _letterbox,
}
# One number stands for both sides.
SQUARE = ("crop", "fit", "letterbox")


def moves(steps: Sequence[Step], size: Size) -> list[Move]:
    """What the steps do to an image of this size, one after the other.

    Raises:
        DataError: the image is too small for a crop.
    """
    found: list[Move] = []
    for step in steps:
        found.append(step.move(found[-1].size if found else size))
    return found


def move_boxes(steps: Sequence[Step], boxes: np.ndarray, size: Size) -> np.ndarray:
    """Boxes (M, 5) as class, center x, center y, width, height, relative to an image of this size, after the steps.

    Boxes that a crop removed have class -1 and zeros.
    """
    before = corners_of(boxes)
    return boxes_of(
        boxes[:, 0], reduce(lambda corners, move: move.corners(corners), moves(steps, size), before)
    )


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """Boxes (M, 5) as class, center, size: their corners (M, 4) as x1, y1, x2, y2."""
    centers, halves = boxes[:, 1:3].astype(np.float64), boxes[:, 3:5].astype(np.float64) / 2
    return np.concatenate([centers - halves, centers + halves], 1)


def boxes_of(classes: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Boxes (M, 5), float32, of classes (M,) and corners (M, 4); without an area: class -1 and zeros."""
    sides = corners[:, 2:] - corners[:, :2]
    boxes = np.concatenate([classes[:, None], (corners[:, :2] + corners[:, 2:]) / 2, sides], 1)
    gone = (sides < LEAST_SIDE).any(1) | (classes < 0)
    boxes[gone] = (-1, 0, 0, 0, 0)
    return boxes.astype(np.float32)


def size_text(size: Sequence[int | None]) -> str:
    """Height and width: 224x224."""
    return "x".join("?" if side is None else str(side) for side in size)

"""From images to the values of a model's input: channels, geometry, scale, mean and standard deviation, layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.data.images.geometry import Move, OpenSize, Size, Step, move_boxes, moves, size_text
from onnxprune.data.images.inputs import (
    channel_count,
    choose_channels,
    choose_layout,
    guess_layout,
    image_size,
)
from onnxprune.data.images.pixels import CHANNELS, as_bytes, change_channels, image_pixels, planes_last
from onnxprune.data.images.steps import PRESETS, VALUES, number_text, read_numbers, read_size, split_steps
from onnxprune.data.specs import InputSpec, type_name
from onnxprune.errors import DataError, SettingError

if TYPE_CHECKING:
    from PIL import Image

# Inputs of detectors: square, and a multiple of the stride.
DETECTOR_SIDE, DETECTOR_STRIDE = 320, 32
# Whole numbers in a narrower range than this have lost what the image shows.
LEAST_RANGE = 16


@dataclass(frozen=True)
class Transform:
    """What an image goes through before a model's input, in this order; see `parse`.

    `steps`: of the geometry. `scale`: a factor. `mean` and `std`: one for each channel, in units after the scale.
    `layout`: "nchw", "nhwc", "nhw" (gray) or "flat" (rows of height * width, or of channels * height * width values).
    `size` and `dtype`: of the input. `width`: of a flat input.
    """

    input: str
    channels: str
    steps: tuple[Step, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str
    size: OpenSize
    dtype: np.dtype
    width: int | None = None

    @classmethod
    def parse(cls, text: str, spec: InputSpec) -> Transform:
        """The transform of a text for an input: a preset, steps, or a preset and steps that replace some of its own.

        `imagenet`, `resize:256,crop:224,scale:1/255,mean:0.485,0.456,0.406,std:0.229,0.224,0.225`, `tf,channels:bgr`.

        Raises:
            SettingError: it is not well-formed, or does not fit the input.
        """
        try:
            return _parse(text, spec)
        except SettingError as error:
            raise SettingError(f"--transform {text}: {error}") from None

    @classmethod
    def default(cls, spec: InputSpec) -> Transform:
        """The guess for an input where no transform is given.

        Raises:
            SettingError: the input takes no images.
        """
        return _parse(_guess(spec), spec)

    def text(self) -> str:
        """The steps as a text that gives the same transform for the same input."""
        steps = [f"channels:{self.channels}", *map(str, self.steps), f"scale:{number_text(self.scale)}"]
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers:
                steps.append(f"{name}:{','.join(map(number_text, numbers))}")
        return ",".join([*steps, f"layout:{self.layout}"])

    def output_size(self, size: Size) -> Size:
        """The height and width that an image of this size has afterwards.

        Raises:
            DataError: it is too small for a crop, or the input takes another size than results.
        """
        done = moves(self.steps, size)
        got = done[-1].size if done else size
        if any(want is not None and have != want for have, want in zip(got, self.size, strict=True)):
            raise DataError(
                f"an image of {size_text(size)} becomes {size_text(got)}, the input {self.input!r} takes "
                f"{size_text(self.size)}: add crop:{size_text(self.size)} to --transform"
            )
        return got

    def geometry(self, image: Image.Image) -> np.ndarray:
        """The pixels (height, width, channels), uint8, of an image after channels and geometry.

        Raises:
            DataError: it is too small for a crop, or does not get the input's size.
        """
        size = (image.height, image.width)
        self.output_size(size)
        image = image_pixels(image, self.channels)
        for move in moves(self.steps, size):
            image = move.image(image)
        pixels = np.asarray(image, np.uint8).reshape(image.height, image.width, -1)
        return pixels[..., ::-1] if self.channels == "bgr" else pixels

    def boxes(self, boxes: np.ndarray, size: Size) -> np.ndarray:
        """Boxes (M, 5) as class, cx, cy, w, h relative to an image of this size, relative to the input's image.

        float32; boxes that a crop removed have class -1 and zeros.
        """
        return move_boxes(self.steps, boxes, size)

    def values(self, images: np.ndarray) -> np.ndarray:
        """The input's values of pixels (n, height, width, channels) after `geometry`; uint8 or float.

        Raises:
            DataError: a flat input takes another number of values.
        """
        planes = self.layout in ("nchw", "flat")
        if planes:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        factor, offset = self._line((-1, 1, 1) if planes else (-1,))
        values = images * factor if (factor != 1).any() or offset.any() else images
        if offset.any():
            values -= offset
        if self.dtype.kind in "iu" and values.dtype.kind == "f":
            values = np.rint(values)
        values = values.astype(self.dtype, copy=False)
        if self.layout == "nhw":
            return values[..., 0]
        if self.layout == "flat":
            values = values.reshape(len(values), -1)
            if self.width is not None and values.shape[1] != self.width:
                raise DataError(
                    f"an image of {size_text(images.shape[2:])} has {values.shape[1]} values, the input {self.input!r} "
                    f"takes {self.width}: give images of its size"
                )
        return values

    def arrays(self, array: np.ndarray) -> np.ndarray:
        """The input's values of images in an array (n, height, width[, channels]) or (n, channels, height, width).

        Raises:
            DataError: it has no images, or they do not fit the input.
        """
        images = self.images(array)
        if images.dtype.kind == "f" and self.scale < 1 and len(images) and 0 < np.abs(images).max() <= 1:
            raise DataError(
                f"images for {self.input!r} are floats up to 1, which scale:{number_text(self.scale)} would scale "
                "again: leave out --transform, or give images from 0 to 255"
            )
        return self.values(images)

    def images(self, array: np.ndarray) -> np.ndarray:
        """The pixels (n, height, width, channels) of images in an array after channels and geometry.

        Raises:
            DataError: as for `arrays`.
        """
        images = as_bytes(planes_last(array, self.layout == "nchw"), self.input)
        images = change_channels(images, self.channels)
        size: Size = (images.shape[1], images.shape[2])
        self.output_size(size)
        for move in moves(self.steps, size):
            if images.shape[1:3] == move.scaled and move.inside():
                images = images[:, move.top : move.top + move.size[0], move.left : move.left + move.size[1]]
            elif images.dtype != np.uint8:
                raise DataError(
                    f"images of {size_text(size)} as floats cannot be resized for {self.input!r}: give them as uint8"
                )
            else:
                images = _moved(images, move)
        return images

    def _line(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Factor and offset of each channel: value = pixel * factor - offset."""
        std = np.array(self.std or (1.0,))
        mean = np.array(self.mean or (0.0,))
        return (
            (self.scale / std).astype(np.float32).reshape(shape),
            (mean / std).astype(np.float32).reshape(shape),
        )


def candidates(spec: InputSpec) -> dict[str, Transform]:
    """The presets that an input can take, the default first, without those that come to the same."""
    found: dict[str, Transform] = {}
    first = _guess(spec)
    for name in (first, *(name for name in PRESETS if name != first)):
        try:
            transform = Transform.parse(name, spec)
        except SettingError:
            continue
        if transform not in found.values():
            found[name] = transform
    return found


def _guess(spec: InputSpec) -> str:
    if spec.dtype.kind in "iu":
        return "raw"
    layout = choose_layout(guess_layout(spec) or "nchw", spec)
    channels = channel_count(spec, layout)
    size = image_size(spec, layout, "gray" if channels == 1 else "rgb")
    if channels == 1:
        return "mnist" if size == (28, 28) else "unit"
    if channels == 4:
        return "unit"
    if size == (32, 32):
        return "cifar10"
    side = size[0]
    if side is not None and size == (side, side) and side >= DETECTOR_SIDE and side % DETECTOR_STRIDE == 0:
        return "yolo"
    return "imagenet"


def _parse(text: str, spec: InputSpec) -> Transform:
    if spec.dtype.kind not in "iuf" and spec.dtype.name != "bfloat16":
        raise SettingError(f"the input {spec.name!r} takes {type_name(spec.dtype)}, images go into numbers")
    own, preset_name = split_steps(text)
    preset = split_steps(PRESETS[preset_name])[0] if preset_name else {}
    if spec.dtype.kind in "iu":
        # The model scales them itself.
        preset = {name: value for name, value in preset.items() if name not in VALUES}
    elif not preset and not set(VALUES) & set(own):
        raise SettingError("it does not say how values are scaled: add scale:1/255, or scale:1 for 0 to 255")
    chosen = {**preset, **own}
    layout = choose_layout(chosen.get("layout"), spec)
    channels = choose_channels(chosen.get("channels"), layout, spec)
    size = image_size(spec, layout, channels)
    numbers = {name: read_numbers(name, chosen.get(name, "")) for name in VALUES}
    if {channels, preset.get("channels", "rgb")} == {"rgb", "bgr"}:
        # The preset gives them in its own order.
        numbers.update({name: numbers[name][::-1] for name in ("mean", "std") if name not in own})
    bands = CHANNELS[channels].count
    if len(numbers["scale"]) > 1:
        raise SettingError("scale takes one number")
    transform = Transform(
        spec.name,
        channels,
        _geometry(chosen.get("geometry", "fit"), size, spec),
        (numbers["scale"] or (1.0,))[0],
        _each("mean", numbers["mean"], bands),
        _each("std", numbers["std"], bands),
        layout,
        size,
        spec.dtype,
        spec.shape[1] if layout == "flat" and isinstance(spec.shape[1], int) else None,
    )
    if not transform.scale or not all(transform.std):
        raise SettingError("scale and std must not be 0")
    _check_range(transform)
    return transform


def _geometry(text: str, size: OpenSize, spec: InputSpec) -> tuple[Step, ...]:
    """The steps of geometry, with the input's size where they have none."""
    steps = []
    for token in text.split(","):
        name, _, value = token.partition(":")
        asked = read_size(name, value)
        height, width = size
        if asked or (height is not None and width is not None):
            steps.append(Step(name, asked or (height or 0, width or 0)))
        elif name == "letterbox":
            raise SettingError(f"the input {spec.name!r} is of any size: give one, for example letterbox:640")
    if steps and any(have is not None for have in size):
        _check_size(steps[-1], size, spec)
    return tuple(steps)


def _check_size(last: Step, size: OpenSize, spec: InputSpec) -> None:
    # Of one number, the longer side is known for each image only.
    got = last.size * 2 if len(last.size) == 1 else last.size
    if any(want is not None and have != want for have, want in zip(got, size, strict=True)):
        cut = f": add crop:{size_text(size)}" if min(got) >= max(side or 0 for side in size) else ""
        raise SettingError(f"{last} does not fit the input {spec.name!r}, which takes {size_text(size)}{cut}")


def _each(name: str, numbers: tuple[float, ...], bands: int) -> tuple[float, ...]:
    if len(numbers) not in (0, 1, bands):
        raise SettingError(f"{name} has {len(numbers)} numbers, the channels are {bands}")
    return numbers * bands if len(numbers) == 1 else numbers


def _check_range(transform: Transform) -> None:
    """Whole numbers must hold the values of the darkest and the lightest pixel."""
    if transform.dtype.kind not in "iu":
        return
    floats = replace(transform, dtype=np.dtype(np.float32), layout="nhwc")
    bands = CHANNELS[transform.channels].count
    ends = floats.values(np.repeat(np.array([0, 255], np.float32), bands).reshape(2, 1, 1, bands))
    limits = np.iinfo(transform.dtype)
    if ends.min() < limits.min - 0.5 or ends.max() > limits.max + 0.5 or np.ptp(ends) < LEAST_RANGE:
        raise SettingError(
            f"values from {ends.min():g} to {ends.max():g} do not fit the input {transform.input!r}, which takes "
            f"{transform.dtype}: leave out scale, mean and std if the model scales images itself"
        )


def _moved(images: np.ndarray, move: Move) -> np.ndarray:
    """Images (n, H, W, C), uint8, after a step, one by one."""
    from PIL import Image

    images = np.ascontiguousarray(images)
    single = images[..., 0] if images.shape[3] == 1 else images
    moved = np.stack([np.asarray(move.image(Image.fromarray(image))) for image in single])
    return moved.reshape(*moved.shape[:3], -1)

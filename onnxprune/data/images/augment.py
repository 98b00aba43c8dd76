"""Random changes of training images, by torchvision; masks and boxes move along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from onnxprune.data.batch import IGNORED
from onnxprune.data.images.geometry import Size, boxes_of, corners_of, size_text
from onnxprune.data.ragged import alike, as_rows, dense
from onnxprune.data.source import Arrays
from onnxprune.errors import DataError, SettingError, first_line
from onnxprune.system.packages import import_torchvision

# The setting that leaves images as they are.
NONE = "none"
# torch takes seeds of 64 bits; all of these are valid.
SEED_MASK = (1 << 63) - 1
# Columns of a box: class, center x, center y, width, height.
BOX = 5


@dataclass(frozen=True)
class Kind:
    """An augmentation: `make(v2, number, size)` gives it, from torchvision.transforms.v2 and the images' size.

    `number`: the default of its number, None if it must be given; between `least` and `most`. `moves`: pixels change
    their place, so that masks and boxes must too. `policy`: it draws from many, and cannot take them along. `ranged`:
    it needs the range of pixels, so that it takes uint8 alone.
    """

    make: Callable[[Any, float, Size], Any]
    help: str
    number: float | None = None
    least: float = 0
    most: float = 1
    whole: bool = False
    moves: bool = False
    policy: bool = False
    ranged: bool = False


AUGMENTATIONS = {
    "flip": Kind(
        lambda v2, p, size: v2.RandomHorizontalFlip(p),
        "mirror left and right, with probability P",
        0.5,
        moves=True,
    ),
    "vflip": Kind(
        lambda v2, p, size: v2.RandomVerticalFlip(p),
        "mirror top and bottom, with probability P",
        0.5,
        moves=True,
    ),
    "crop": Kind(
        lambda v2, n, size: v2.RandomCrop(size, padding=int(n)),
        "pad by N pixels and crop back to the size at a random place",
        least=1,
        most=1024,
        whole=True,
        moves=True,
    ),
    "rotate": Kind(
        lambda v2, degrees, size: v2.RandomRotation(degrees, v2.InterpolationMode.BILINEAR),
        "rotate by up to DEGREES to either side",
        least=0,
        most=180,
        moves=True,
    ),
    "translate": Kind(
        lambda v2, share, size: v2.RandomAffine(0, (share, share)),
        "shift by up to this SHARE of the size",
        0.1,
        moves=True,
    ),
    "zoom": Kind(
        lambda v2, share, size: v2.RandomAffine(
            0, scale=(1 - share, 1 + share), interpolation=v2.InterpolationMode.BILINEAR
        ),
        "zoom in or out by up to this SHARE",
        0.1,
        most=0.9,
        moves=True,
    ),
    "shear": Kind(
        lambda v2, degrees, size: v2.RandomAffine(
            0, shear=degrees, interpolation=v2.InterpolationMode.BILINEAR
        ),
        "shear by up to DEGREES",
        most=45,
        moves=True,
    ),
    "perspective": Kind(
        lambda v2, share, size: v2.RandomPerspective(share),
        "turn half of the images in space, by up to this SHARE",
        0.5,
        moves=True,
    ),
    "resized-crop": Kind(
        lambda v2, lowest, size: v2.RandomResizedCrop(size, (lowest, 1)),
        "crop a random part, of at least this SHARE of the area, and resize it back",
        0.08,
        least=0.01,
        moves=True,
    ),
    "color": Kind(
        lambda v2, strength, size: v2.ColorJitter(strength, strength, strength, strength / 4),
        "change brightness, contrast, saturation and hue, by STRENGTH",
        0.4,
        ranged=True,
    ),
    "gray": Kind(
        lambda v2, p, size: v2.RandomGrayscale(p),
        "take the colors away, with probability P",
        0.1,
        ranged=True,
    ),
    "blur": Kind(
        lambda v2, sigma, size: v2.GaussianBlur(2 * round(2 * sigma) + 1, (0.1, sigma)),
        "blur by a Gaussian of up to SIGMA pixels",
        1,
        least=0.1,
        most=16,
    ),
    "erase": Kind(
        lambda v2, p, size: v2.RandomErasing(p), "blacken a random rectangle, with probability P", 0.25
    ),
    "trivial": Kind(
        lambda v2, _, size: v2.TrivialAugmentWide(), "TrivialAugment (wide)", 1, policy=True, ranged=True
    ),
    "rand": Kind(
        lambda v2, magnitude, size: v2.RandAugment(magnitude=int(magnitude)),
        "RandAugment, two changes of MAGNITUDE",
        9,
        most=30,
        whole=True,
        policy=True,
        ranged=True,
    ),
    "auto": Kind(
        lambda v2, _, size: v2.AutoAugment(),
        "AutoAugment, the policy of ImageNet",
        1,
        policy=True,
        ranged=True,
    ),
    "augmix": Kind(
        lambda v2, severity, size: v2.AugMix(int(severity)),
        "AugMix of SEVERITY",
        3,
        least=1,
        most=10,
        whole=True,
        policy=True,
        ranged=True,
    ),
}


@dataclass(frozen=True)
class Augmentation:
    """Steps of `AUGMENTATIONS` by name and number, one after the other."""

    steps: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, text: str | None) -> Augmentation | None:
        """That of the setting; None where images are not changed.

        Raises:
            SettingError: as for `parse`.
        """
        return None if text in (None, NONE) else cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """The augmentation of a text such as `flip,crop:4`; torch is not needed for it.

        Raises:
            SettingError: a name is not known, or a number is missing or out of its range.
        """
        return cls(tuple(_step(token.strip(), text) for token in text.split(",")))

    def text(self) -> str:
        """The steps as a text that gives the same augmentation."""
        return ",".join(f"{name}:{number:g}" for name, number in self.steps)

    def images(
        self,
        images: np.ndarray,
        seeds: Sequence[int] | np.ndarray,
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, Arrays]:
        """Images (n, height, width, channels), uint8 or float, and their labels, changed at random.

        A sample's change is fixed by its seed alone. Labels of the images' size (n, ..., height, width) are masks, with
        0 where an image ends; those (n, M, 5) are boxes as class, cx, cy, w, h, relative, with class -1 where one left
        its image. Others stay.

        Raises:
            DataError: a step cannot take such images or labels.
            MissingPackageError: torchvision is not installed.
        """
        torchvision = import_torchvision("augmentation")
        import torch

        size: Size = (images.shape[1], images.shape[2])
        kept = {key: np.array(array) for key, array in (labels or {}).items()}
        moving = {key: _mover(key, array, size) for key, array in kept.items()}
        self._check(images, kept, moving)
        pipeline = _pipeline(self.steps, size)
        movers = {key: mover for key, mover in moving.items() if mover}
        changed = np.empty_like(images, order="C")
        pixels = torch.from_numpy(np.array(images, _computed(images.dtype), order="C")).permute(0, 3, 1, 2)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for index, seed in enumerate(seeds):
                torch.default_generator.manual_seed(int(seed) & SEED_MASK)
                image: Any = pixels[index]
                if movers:
                    image = torchvision.tv_tensors.Image(image)
                along = [mover.wrap(torchvision, kept[key][index], size) for key, mover in movers.items()]
                image, along = self._sample(pipeline, image, along)
                changed[index] = image.permute(1, 2, 0).numpy()
                for (key, mover), moved in zip(movers.items(), along, strict=True):
                    mover.unwrap(moved, kept[key][index], size)
        return changed, kept

    def _sample(self, pipeline: Sequence[Any], image: Any, along: list[Any]) -> tuple[Any, list[Any]]:
        for (name, _), step in zip(self.steps, pipeline, strict=True):
            try:
                if along and AUGMENTATIONS[name].moves:
                    image, along = step(image, along)
                else:
                    image = step(image)
            except (RuntimeError, TypeError, ValueError) as error:
                raise DataError(
                    f"--augment {name} fails on an image of {size_text(image.shape[-2:])} with {image.shape[-3]} "
                    f"channels: {first_line(error)}; leave it out"
                ) from None
        return image, along

    def _check(self, images: np.ndarray, labels: Arrays, movers: Mapping[str, Any]) -> None:
        for name, _ in self.steps:
            kind = AUGMENTATIONS[name]
            if kind.ranged and images.dtype != np.uint8:
                raise DataError(
                    f"--augment {name} needs pixels from 0 to 255, the images are {images.dtype} and scaled already: "
                    "give image files, or arrays of bytes with --transform"
                )
            for key, array in labels.items():
                if kind.policy and movers[key]:
                    raise DataError(
                        f"--augment {name} cannot move the {'boxes' if movers[key] is Boxes else 'masks'} of {key!r} "
                        "along: use flip, crop, rotate or resized-crop"
                    )
                if (kind.moves or kind.policy) and array.ndim > 2 and not movers[key]:
                    raise DataError(
                        f"--augment {name} cannot move {key!r} of shape {array.shape} along with images of "
                        f"{size_text(images.shape[1:3])}: give masks of that size, or leave {name} out"
                    )


class Masks:
    """Labels of pixels, of the image's size. Where the image moves in from beyond its border, classes are ignored."""

    @staticmethod
    def wrap(torchvision: Any, mask: np.ndarray, size: Size) -> Any:
        import torch

        # What moves in is 0, so that 0 has to mean ignored.
        wrapped = mask - IGNORED if mask.dtype == np.int64 else mask.copy()
        return torchvision.tv_tensors.Mask(torch.from_numpy(wrapped.reshape(-1, *size)))

    @staticmethod
    def unwrap(moved: Any, mask: np.ndarray, size: Size) -> None:
        mask[...] = moved.numpy().reshape(mask.shape)
        if mask.dtype == np.int64:
            mask += IGNORED


class Boxes:
    """Boxes (M, 5) as class, cx, cy, w, h, relative to the image; class -1: none."""

    @staticmethod
    def wrap(torchvision: Any, boxes: np.ndarray, size: Size) -> Any:
        import torch

        corners = torch.from_numpy(corners_of(boxes) * _sides(size))
        return torchvision.tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=size)

    @staticmethod
    def unwrap(moved: Any, boxes: np.ndarray, size: Size) -> None:
        boxes[...] = boxes_of(boxes[:, 0], np.clip(moved.numpy() / _sides(size), 0, 1))


def _sides(size: Size) -> np.ndarray:
    """What makes x1, y1, x2, y2 of relative corners pixels."""
    return np.array([size[1], size[0], size[1], size[0]], np.float64)


def _mover(key: str, array: np.ndarray, size: Size) -> type[Masks] | type[Boxes] | None:
    if array.ndim > 2 and array.shape[-2:] == size:
        return Masks
    return Boxes if array.ndim == 3 and array.shape[2] == BOX and array.dtype.kind == "f" else None


def _computed(dtype: np.dtype) -> np.dtype:
    """uint8, or float32 instead of the other floats, which not all steps have on a CPU."""
    return dtype if dtype == np.uint8 else np.dtype(np.float32)


@lru_cache(maxsize=8)
def _pipeline(steps: tuple[tuple[str, float], ...], size: Size) -> list[Any]:
    v2 = import_module("torchvision.transforms.v2")
    return [AUGMENTATIONS[name].make(v2, number, size) for name, number in steps]


def _step(token: str, text: str) -> tuple[str, float]:
    name, colon, value = token.partition(":")
    kind = AUGMENTATIONS.get(name)
    if kind is None:
        raise SettingError(
            f"--augment {text}: there is no augmentation {name!r}; give some of {', '.join(AUGMENTATIONS)}"
        )
    try:
        number = float(value) if colon else kind.number
    except ValueError:
        number = None
    if number is None or not kind.least <= number <= kind.most or (kind.whole and number != int(number)):
        numbers = "a whole number" if kind.whole else "a number"
        raise SettingError(
            f"--augment {text}: {name} takes {numbers} from {kind.least:g} to {kind.most:g}, for example "
            f"{name}:{kind.number or max(kind.least, min(kind.most, 4)):g} ({kind.help})"
        )
    return name, number


def augment(
    augmentation: Augmentation,
    images: np.ndarray,
    seeds: Sequence[int] | np.ndarray,
    labels: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, Arrays]:
    """`Augmentation.images` of images, or masks among their labels, that may be of several sizes."""
    arrays = {"": images, **labels}
    parts = list(alike(arrays, (), ordered=False))
    if parts == [None]:
        return augmentation.images(images, seeds, labels)
    rows: dict[str, dict[int, np.ndarray]] = {key: {} for key in arrays}
    for index in parts:
        assert index is not None
        some = {key: dense(array[index]) for key, array in labels.items()}
        changed, moved = augmentation.images(dense(images[index]), np.asarray(seeds)[index], some)
        for key, array in {"": changed, **moved}.items():
            rows[key] |= zip(index.tolist(), array, strict=True)
    found = {
        key: as_rows([np.asarray(made[place]) for place in range(len(images))]) for key, made in rows.items()
    }
    return found.pop(""), found

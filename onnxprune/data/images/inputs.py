"""What the dims of an input say about the images that it takes: layout, channels and size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.data.images.geometry import OpenSize
from onnxprune.data.images.pixels import CHANNELS, COUNTS
from onnxprune.data.specs import InputSpec, dims_text, type_name
from onnxprune.errors import DataError, SettingError

# By the rank of the input; flat: rows of height * width (gray), or of channels * height * width values.
LAYOUTS = {4: ("nchw", "nhwc"), 3: ("nhw",), 2: ("flat",)}


def image_spec(specs: Sequence[InputSpec], name: str) -> InputSpec:
    """The input that takes images, which must be the only one.

    Raises:
        DataError: there are several.
    """
    if len(specs) != 1:
        raise DataError(
            f"{name} has images for one input, the model has {len(specs)}: give arrays for all of them, as .npz"
        )
    return specs[0]


def check_takes_images(spec: InputSpec, name: str) -> None:
    """Check that an input (N, W) may be rows of pixels, and not features or tokens.

    Raises:
        DataError: its type is that of tokens, or its width no number of pixels of a square.
    """
    if len(spec.shape) != 2:
        return
    tokens = spec.dtype in (np.int32, np.int64)
    width = spec.shape[1]
    sized = any(image_size(spec, "flat", channels)[0] for channels in ("gray", "rgb"))
    if tokens or spec.dtype.kind not in "iuf" or (isinstance(width, int) and not sized):
        raise DataError(
            f"{name} is a folder of images, the input {spec.name!r} ({dims_text(spec)}, {type_name(spec.dtype)}) takes "
            "rows of numbers: give them as .npz, .npy or a table"
        )


def guess_layout(spec: InputSpec) -> str | None:
    """The layout that the dims tell; None: none."""
    if len(spec.shape) == 4:
        return "nchw" if spec.shape[1] in COUNTS else "nhwc" if spec.shape[3] in COUNTS else None
    return {3: "nhw", 2: "flat"}.get(len(spec.shape))


def choose_layout(asked: str | None, spec: InputSpec) -> str:
    """The layout of an input, `asked` for or told by the dims.

    Raises:
        SettingError: it does not fit, or cannot be told.
    """
    known = [layout for layouts in LAYOUTS.values() for layout in layouts]
    if asked is not None and asked not in known:
        raise SettingError(f"there is no layout {asked}: give one of {', '.join(known)}")
    fitting = LAYOUTS.get(len(spec.shape), ())
    if not fitting:
        raise SettingError(
            f"the input {spec.name!r} has {len(spec.shape)} dims, images take 4, 3 or 2: give arrays, as .npz or .npy, "
            "or MODULE:FUNCTION"
        )
    layout = asked or guess_layout(spec)
    if layout is None:
        raise SettingError(
            f"the dims of the input {spec.name!r} do not tell its layout: give layout:nchw or layout:nhwc"
        )
    if layout not in fitting:
        raise SettingError(
            f"layout:{layout} does not fit the input {spec.name!r}: give {' or '.join(fitting)}"
        )
    return layout


def choose_channels(asked: str | None, layout: str, spec: InputSpec) -> str:
    """The channels of an input, `asked` for or told by the dims; "rgb" where they are dynamic.

    Raises:
        SettingError: they do not fit.
    """
    if asked is not None and asked not in CHANNELS:
        raise SettingError(f"there are no channels {asked}: give one of {', '.join(CHANNELS)}")
    count = channel_count(spec, layout)
    if asked is not None:
        if layout != "flat" and count not in (None, CHANNELS[asked].count):
            raise SettingError(
                f"channels:{asked} are {CHANNELS[asked].count}, the input {spec.name!r} takes {count}"
            )
        return asked
    if count is None:
        return "rgb"
    found = next((name for name, channels in CHANNELS.items() if channels.count == count), None)
    if found is None:
        raise SettingError(f"the input {spec.name!r} takes {count} channels, images have 1, 3 or 4")
    return found


def channel_count(spec: InputSpec, layout: str) -> int | None:
    """How many channels an input takes in a layout; None: any."""
    if layout == "nhw":
        return 1
    if layout == "flat":
        gray, colored = (image_size(spec, "flat", channels)[0] for channels in ("gray", "rgb"))
        return 3 if gray is None and colored is not None else 1
    channels = spec.shape[1 if layout == "nchw" else 3]
    return channels if isinstance(channels, int) else None


def image_size(spec: InputSpec, layout: str, channels: str) -> OpenSize:
    """Height and width that an input takes in a layout; a flat one takes squares where its width allows them."""
    if layout == "flat":
        width, bands = spec.shape[1], CHANNELS[channels].count
        side = math.isqrt(width // bands) if isinstance(width, int) else 0
        return (side, side) if side and side * side * bands == width else (None, None)
    axes = {"nchw": (2, 3), "nhwc": (1, 2), "nhw": (1, 2)}[layout]
    height, width = (spec.shape[axis] for axis in axes)
    return height if isinstance(height, int) else None, width if isinstance(width, int) else None

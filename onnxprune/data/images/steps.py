"""The text of a transform: presets, steps with their numbers, and sizes."""

from __future__ import annotations

import math

from onnxprune.data.images.geometry import SQUARE, STEPS
from onnxprune.errors import SettingError

IMAGENET = "mean:0.485,0.456,0.406,std:0.229,0.224,0.225"
# What images go through for models of a kind, as the training code of that kind has it; `fit` is for the input's size.
PRESETS = {
    "imagenet": f"fit,scale:1/255,{IMAGENET}",
    "tf": "fit,mean:128,std:128",
    "unit": "fit,scale:1/255",
    "raw": "fit,scale:1",
    "yolo": "letterbox,scale:1/255",
    "mnist": "channels:gray,fit,scale:1/255",
    "mnist-torch": "channels:gray,fit,scale:1/255,mean:0.1307,std:0.3081",
    "cifar10": "fit,scale:1/255,mean:0.4914,0.4822,0.4465,std:0.247,0.2435,0.2616",
    "cifar100": "fit,scale:1/255,mean:0.5071,0.4867,0.4408,std:0.2675,0.2565,0.2761",
    "inception": "fit,scale:1/255,mean:0.5,std:0.5",
    "caffe": "channels:bgr,fit,mean:103.939,116.779,123.68",
    "clip": "fit,scale:1/255,mean:0.48145466,0.4578275,0.40821073,std:0.26862954,0.26130258,0.27577711",
}
VALUES = ("scale", "mean", "std")


def split_steps(text: str) -> tuple[dict[str, str], str | None]:
    """The steps of a text as {name: value}, those of the geometry together under "geometry", and the preset's name.

    Raises:
        SettingError: a step is not known, or given twice.
    """
    steps: dict[str, str] = {}
    last, preset = "", None
    known = (*STEPS, "channels", "layout", *VALUES)
    for place, token in enumerate(part.strip() for part in text.split(",")):
        name, colon, value = token.partition(":")
        if not colon and last in VALUES and _number(token) is not None:
            steps[last] += f",{token}"
        elif not place and token in PRESETS:
            preset = token
        elif name in STEPS and (value or (not colon and name in ("fit", "letterbox"))):
            steps["geometry"] = f"{steps['geometry']},{token}" if "geometry" in steps else token
            last = name
        elif name in known and value:
            if name in steps:
                raise SettingError(f"{name} is given twice: give it once")
            steps[name], last = value, name
        elif token in PRESETS:
            raise SettingError(f"the preset {token} must come first")
        else:
            raise SettingError(
                f"there is no step {token!r}: give a preset ({', '.join(PRESETS)}), or steps as NAME:VALUE with the "
                f"names {', '.join(known)}"
            )
    return steps, preset


def read_size(name: str, value: str) -> tuple[int, ...]:
    """The size of a step of the geometry: () without one, (shorter side,), or (height, width).

    Raises:
        SettingError: it is none.
    """
    if not value:
        return ()
    parts = value.split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise SettingError(f"{name}:{value} is no size: give pixels, such as {name}:224 or {name}:224x320")
    sides = tuple(map(int, parts))
    return sides * 2 if len(sides) == 1 and name in SQUARE else sides


def read_numbers(name: str, text: str) -> tuple[float, ...]:
    """The numbers of a step, some of them fractions.

    Raises:
        SettingError: one is none.
    """
    numbers = [_number(part) for part in text.split(",")] if text else []
    known = [number for number in numbers if number is not None]
    if len(known) != len(numbers):
        raise SettingError(f"{name}:{text} is no number: give for example {name}:1/255 or {name}:0.5")
    return tuple(known)


def _number(text: str) -> float | None:
    """A number or a fraction of two, finite; None if it is neither."""
    above, slash, below = text.partition("/")
    try:
        number = float(above) / (float(below) if slash else 1)
    except (ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def number_text(number: float) -> str:
    """A number as `read_numbers` takes it, short: 1/255, 128, 0.485."""
    inverse = 1 / number if number else 0
    if inverse > 1 and 1 / round(inverse) == number:
        return f"1/{round(inverse)}" if round(inverse) > 10 else repr(number)
    return f"{number:.0f}" if number == round(number) else repr(number)

"""Checks of settings: numbers, their ranges, and texts such as 90%, 1.5MB or x:1,3,224,224."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from onnxprune.config.declare import AUTO
from onnxprune.errors import SettingError


@dataclass(frozen=True)
class Range:
    """The numbers that a setting allows: a test, and the words for a message."""

    holds: Callable[[float], bool]
    words: str


ABOVE_0 = Range(lambda value: value > 0, "greater than 0")
AT_LEAST_0 = Range(lambda value: value >= 0, "0 or more")
AT_LEAST_1 = Range(lambda value: value >= 1, "1 or more")
SHARE = Range(lambda value: 0 <= value <= 1, "between 0 and 1")
PART = Range(lambda value: 0 < value < 1, "greater than 0 and less than 1")
FRACTION = Range(lambda value: 0 <= value < 1, "in [0, 1)")
RATE = Range(lambda value: 0 <= value < 1, "in [0, 1): the fraction of weights to remove, for example 0.9")
SEED = Range(lambda value: 0 <= value < 2**32, "between 0 and 4294967295")

SECONDS = {"s": 1, "m": 60, "h": 3600}
UNITS = {"k": 10**3, "m": 10**6, "g": 10**9}


def check_numbers(settings: Any) -> None:
    """Convert the numbers of a frozen dataclass to their declared types, and check their ranges.

    A field's `within` metadata is its range; None is allowed where the declared type allows it.

    Raises:
        SettingError: a value is not a number, or out of its range.
    """
    for setting in fields(settings):
        flag, value = f"--{setting.name.replace('_', '-')}", getattr(settings, setting.name)
        kind, *alternatives = str(setting.type).split(" | ")
        if (
            isinstance(value, str)
            and value == AUTO
            and kind in ("int", "float", "bool")
            and "None" in alternatives
        ):
            value = None
            object.__setattr__(settings, setting.name, value)
        if kind not in ("int", "float") or (value is None and "None" in alternatives):
            continue
        if kind == "float":
            value = parse_fraction(flag, value)
            object.__setattr__(settings, setting.name, value)
        elif not isinstance(value, int) or isinstance(value, bool):
            raise SettingError(f"{flag} is {value!r}: it must be an integer")
        check_range(flag, value, setting.metadata.get("within"))


def check_range(name: str, value: float, within: Range | None) -> None:
    """Check a number against a range; `name` is its flag.

    Raises:
        SettingError: it is out of the range.
    """
    if within is not None and not within.holds(value):
        raise SettingError(f"{name} is {value}: it must be {within.words}")


def parse_fraction(name: str, value: Any) -> float:
    """A number, or a text such as "0.005" or "0.5%", as a float.

    Raises:
        SettingError: it is not a number, or not finite.
    """
    text = str(value).strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SettingError(f"{name} is {value!r}: give a number such as 0.9 or 90%")
    return number


def parse_time(name: str, value: Any) -> float:
    """A duration, or a text such as "90s", "10m" or "1.5h", in seconds; a number alone is of seconds.

    Raises:
        SettingError: it is not a duration, or not greater than 0.
    """
    try:
        seconds = _in_units(str(value).strip().lower(), SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise SettingError(f"{name} is {value!r}: give a time such as 90s, 10m or 1.5h")
    return seconds


def parse_bytes(name: str, value: Any) -> int:
    """A number of bytes, or a text such as "500k" or "1.5MB", in decimal units.

    Raises:
        SettingError: it is not a size, or not greater than 0.
    """
    text = str(value).strip().lower().removesuffix("b")
    try:
        count = round(_in_units(text, UNITS))
    except (ValueError, OverflowError):
        count = 0
    if count <= 0:
        raise SettingError(f"{name} is {value!r}: give a size such as 500k or 1.5MB")
    return count


def _in_units(text: str, units: Mapping[str, int]) -> float:
    """A number with one of these units behind it, or with none."""
    return float(text[:-1] if text[-1:] in units else text) * units.get(text[-1:], 1)


def parse_pair(flag: str, pair: Any, example: str) -> tuple[str, float]:
    """A selector and a number, from a text SELECTOR=NUMBER or from a pair.

    Raises:
        SettingError: there is no number.
    """
    if isinstance(pair, str):
        selector, separator, number = pair.rpartition("=")
        if not separator or not selector:
            raise SettingError(f"{flag} {pair!r} has no number: write SELECTOR=NUMBER, for example {example}")
        pair = (selector, number)
    selector, number = pair
    return str(selector), parse_fraction(f"{flag} {selector}", number)


Pairs = tuple[tuple[str, float], ...]


def pairs(flag: str, given: Any, example: str) -> Pairs:
    """Selectors with a number each, from a mapping, pairs, or texts such as "fc*=0.95".

    Raises:
        SettingError: a selector has no number, or one that is not in [0, 1).
    """
    items = given.items() if isinstance(given, Mapping) else [given] if isinstance(given, str) else given
    found = tuple(parse_pair(flag, pair, example) for pair in items)
    for selector, number in found:
        check_range(f"{flag} {selector}", number, RATE)
    return found


def input_shapes(given: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by input name, from a mapping, pairs, or texts such as "x:1,3,224,224".

    Raises:
        SettingError: a text has no name, or its dims are not positive integers.
    """
    if isinstance(given, str):
        given = (given,)
    pairs = given.items() if isinstance(given, Mapping) else map(_input_shape, given)
    return {str(name): tuple(int(dim) for dim in shape) for name, shape in pairs}


def _input_shape(pair: Any) -> tuple[str, tuple[int, ...]]:
    if not isinstance(pair, str):
        return pair
    # Names may hold colons themselves: tf2onnx writes input:0.
    name, separator, dims = pair.rpartition(":")
    numbers = [dim.strip() for dim in dims.split(",")] if dims else []
    if not separator or not name or not all(dim.isdecimal() and int(dim) > 0 for dim in numbers):
        raise SettingError(
            f"--input-shape {pair!r} is not a name with dims: write NAME:DIMS, for example x:1,3,224,224"
        )
    return name, tuple(map(int, numbers))


def batch_axes(given: Any) -> dict[str, int | None]:
    """Batch axes by name, from a mapping, pairs, or texts such as "x:1" and "scale:none".

    Raises:
        SettingError: a text has no name, or its axis is no number from 0 and not none.
    """
    if isinstance(given, str):
        given = (given,)
    pairs = given.items() if isinstance(given, Mapping) else map(_batch_axis, given)
    return {str(name): None if axis is None else int(axis) for name, axis in pairs}


def _batch_axis(pair: Any) -> tuple[str, int | None]:
    if not isinstance(pair, str):
        return pair
    name, _, axis = pair.rpartition(":")
    if not name or not (axis.isdecimal() or axis == "none"):
        raise SettingError(
            f"--batch-axis {pair!r} is not a name with an axis: write NAME:AXIS, for example x:1, or NAME:none"
        )
    return name, None if axis == "none" else int(axis)

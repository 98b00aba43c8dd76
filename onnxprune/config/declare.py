"""How a setting is declared: once, as a field of its part, with its help text and its allowed values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar

from onnxprune.errors import SettingError

# The forms that callers may use; properties of the parts normalize them.
PathLike = str | os.PathLike[str]
Names = str | Sequence[str]
PairsLike = str | Mapping[str, float] | Sequence[str | tuple[str, float]]
ShapesLike = str | Mapping[str, Sequence[int]] | Sequence[str | tuple[str, Sequence[int]]]
AxesLike = str | Mapping[str, int | None] | Sequence[str | tuple[str, int | None]]
AUTO = "auto"
"""The value of a setting that the job chooses; numbers and switches are None then."""

DataSource = PathLike | Mapping[str, Any] | Iterable[Mapping[str, Any]] | None


T = TypeVar("T")


def settled(value: T | None) -> T:
    """A setting that the job has chosen by now."""
    assert value is not None, "the rules of job/choices/defaults.py choose it"
    return value


def setting(default: Any, help: str, *, metavar: str | None = None, **extra: Any) -> Any:
    """A field with its help text, one or two sentences.

    `within`: the range of a number; `choices`: the allowed texts; `table`: the table whose names are allowed;
    `aliases`: further flags; `common`: a short text for `onnxprune --help`, which shows the most used settings;
    `trains=False`: the setting does not affect the weights of the result.
    """
    return field(default=default, kw_only=True, metadata={"help": help, "metavar": metavar, **extra})


def find_entry(flag: str, table: Mapping[str, T], name: str) -> T:
    """The entry of a table that the value of a flag names.

    Raises:
        SettingError: there is none.
    """
    # Also what is no name at all, as damaged metadata may have it.
    if name not in tuple(table):
        raise SettingError(f"{flag} is {name!r}: it must be one of {', '.join(table)}")
    return table[name]


def describe_source(source: Any) -> str | None:
    """The name of a data source: its path, or the type of a Python object."""
    if source is None:
        return None
    return str(source) if isinstance(source, str | os.PathLike) else f"<{type(source).__name__}>"

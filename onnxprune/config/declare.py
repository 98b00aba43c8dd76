"""How a setting is declared: once, as a field of its part, with what the command line shows of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

# What callers may write; a part's properties give it in one form.
PathLike = str | os.PathLike[str]
Names = str | Sequence[str]
PairsLike = str | Mapping[str, float] | Sequence[str | tuple[str, float]]
ShapesLike = str | Mapping[str, Sequence[int]] | Sequence[str | tuple[str, Sequence[int]]]
DataSource = PathLike | Mapping[str, Any] | Iterable[Mapping[str, Any]] | None


def setting(default: Any, help: str, *, metavar: str | None = None, **extra: Any) -> Any:
    """A field with its help text, one or two sentences.

    `within`: the range that a number must be in; `choices`: the texts allowed; `table`: the table whose names are;
    `aliases`: further flags; `common`: a short text for `onnxprune --help`, which shows the most used settings;
    `trains=False`: it does not change the weights that come out.
    """
    return field(default=default, kw_only=True, metadata={"help": help, "metavar": metavar, **extra})


def describe_source(source: Any) -> str | None:
    """A data source in words: its path, or the kind of Python object it is."""
    if source is None:
        return None
    return str(source) if isinstance(source, str | os.PathLike) else f"<{type(source).__name__}>"

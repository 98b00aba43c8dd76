"""Selectors over node and initializer names: exact, glob, or `re:` regular expression."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from onnxprune.errors import SelectorError
from onnxprune.model.weights import Weight

NAMES_SHOWN = 8


def select(selector: str, weights: Sequence[Weight]) -> list[Weight]:
    """The weights whose initializer or node name the selector matches.

    An exact match takes precedence over a glob, so names may contain brackets.

    Raises:
        SelectorError: it matches nothing, or the regular expression is invalid.
    """
    exact = [weight for weight in weights if selector in _names(weight)]
    if exact:
        return exact
    pattern = _compile(selector)
    chosen = [weight for weight in weights if any(pattern.fullmatch(name) for name in _names(weight))]
    if not chosen:
        known = ", ".join(weight.name for weight in weights[:NAMES_SHOWN])
        more = ", ..." if len(weights) > NAMES_SHOWN else ""
        raise SelectorError(
            f"selector {selector!r} matches no prunable weight: give one of {known}{more} (see `onnxprune inspect`)"
        )
    return chosen


def matching(selector: str, names: Sequence[str], kind: str) -> list[str]:
    """The names that the selector matches; `kind` says in messages what they name.

    Raises:
        SelectorError: it matches nothing, or the regular expression is invalid.
    """
    if selector in names:
        return [selector]
    pattern = _compile(selector)
    chosen = [name for name in names if pattern.fullmatch(name)]
    if not chosen:
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        raise SelectorError(
            f"selector {selector!r} matches no {kind}: give one of {', '.join(names[:NAMES_SHOWN])}{more}"
        )
    return chosen


def _names(weight: Weight) -> set[str]:
    return {weight.name, *weight.node_names} - {""}


def _compile(selector: str) -> re.Pattern[str]:
    if not selector.startswith("re:"):
        return re.compile(fnmatch.translate(selector))
    try:
        return re.compile(selector[3:])
    except re.error as error:
        raise SelectorError(f"selector {selector!r} is not a valid regular expression: {error}") from None

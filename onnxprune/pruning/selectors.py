"""Selectors: a name of a node or initializer, a glob, `re:` a regular expression, or `op:` an operator type."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from onnxprune.errors import SelectorError, some
from onnxprune.model.weights import Weight

NAMES_SHOWN = 8
OPERATOR = "op:"


def select(selector: str, weights: Sequence[Weight]) -> list[Weight]:
    """The weights whose initializer, node name or operator type the selector matches.

    An exact match takes precedence over a glob, so names may contain brackets. A weight that several nodes share is of
    the types of all of them.

    Raises:
        SelectorError: it matches nothing, or the regular expression is invalid.
    """
    exact = [weight for weight in weights if selector in _names(weight)]
    if exact:
        return exact
    if selector.startswith(OPERATOR):
        return _of_type(selector, {weight: _types(weight) for weight in weights}, "prunable weight")
    pattern = _compile(selector)
    chosen = [weight for weight in weights if any(pattern.fullmatch(name) for name in _names(weight))]
    if not chosen:
        known = some([weight.name for weight in weights], NAMES_SHOWN)
        raise SelectorError(
            f"selector {selector!r} matches no prunable weight: give one of {known} (see `onnxprune inspect`)"
        )
    return chosen


def matching(selector: str, types: Mapping[str, str], kind: str) -> list[str]:
    """The names that the selector matches, of those in `types`, with the operator type of each.

    `kind` says in messages what they name.

    Raises:
        SelectorError: it matches nothing, or the regular expression is invalid.
    """
    names = list(types)
    if selector in names:
        return [selector]
    if selector.startswith(OPERATOR):
        return _of_type(selector, {name: {types[name]} for name in names}, kind)
    pattern = _compile(selector)
    chosen = [name for name in names if pattern.fullmatch(name)]
    if not chosen:
        raise SelectorError(
            f"selector {selector!r} matches no {kind}: give one of {some(names, NAMES_SHOWN)}"
        )
    return chosen


Item = TypeVar("Item")


def _of_type(selector: str, types: Mapping[Item, Collection[str]], kind: str) -> list[Item]:
    """The items of which an operator type matches a selector op:TYPE, in which TYPE may be a glob."""
    wanted = selector.removeprefix(OPERATOR)
    chosen = [item for item, own in types.items() if any(fnmatch.fnmatchcase(each, wanted) for each in own)]
    if not chosen:
        known = ", ".join(sorted({f"{OPERATOR}{each}" for own in types.values() for each in own}))
        raise SelectorError(f"selector {selector!r} matches no {kind}: give one of {known}")
    return chosen


def _types(weight: Weight) -> set[str]:
    return {use.node.op_type for use in weight.uses}


def _names(weight: Weight) -> set[str]:
    return {weight.name, *weight.node_names} - {""}


def _compile(selector: str) -> re.Pattern[str]:
    if not selector.startswith("re:"):
        return re.compile(fnmatch.translate(selector))
    try:
        return re.compile(selector[3:])
    except re.error as error:
        raise SelectorError(f"selector {selector!r} is not a valid regular expression: {error}") from None

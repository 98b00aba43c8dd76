"""Data from a user's function, given as MODULE:FUNCTION."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from onnxprune.data.named import named
from onnxprune.data.objects import open_object
from onnxprune.data.request import Request
from onnxprune.data.source import Source
from onnxprune.data.stream import StreamSource
from onnxprune.errors import DataError


def names_function(text: str) -> bool:
    """Whether a text is MODULE:FUNCTION."""
    _, colon, function = text.partition(":")
    return bool(colon) and function.isidentifier()


def open_function(text: str, request: Request) -> Source:
    """What a function without arguments gives: data as from Python; if it yields, it is called anew at every pass.

    A parameter `epoch`, if it has one, is the number of the pass over the training data, from 0.

    Raises:
        DataError: there is no such function, or it fails.
    """
    function = _load(text)

    def call(epoch: int) -> Any:
        try:
            return function(epoch=epoch) if _takes_epoch(function) else function()
        except Exception as error:
            raise DataError(f"{text} failed: {type(error).__name__}: {error}") from error

    given = call(0)
    if isinstance(given, Iterator):
        return StreamSource(call, text, request.rows)
    if given is None or not (hasattr(given, "__getitem__") or isinstance(given, Iterable | Source)):
        raise DataError(f"{text} returned {type(given).__name__}: it must yield batches or return a dataset")
    return open_object(given, text, request)


def _load(text: str) -> Callable[..., Any]:
    module_name, _, function_name = text.partition(":")
    try:
        function = named(module_name, function_name)
    except ModuleNotFoundError as error:
        raise DataError(f"{text}: {error}; give a module in this folder or an installed one") from None
    except AttributeError:
        raise DataError(
            f"module {module_name} has no {function_name}: give a function that yields batches"
        ) from None
    except Exception as error:
        raise DataError(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise DataError(f"{text} is not a function: give one that yields batches")
    return function


def _takes_epoch(function: Callable[..., Any]) -> bool:
    try:
        return "epoch" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False

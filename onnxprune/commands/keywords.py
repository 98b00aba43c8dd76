"""Types for commands whose keywords are the settings, so that editors complete them and type checkers check them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, ParamSpec, Protocol, TypeVar

from onnxprune.job.result import Result
from onnxprune.model.files.io import ModelLike
from onnxprune.system.progress import StageProgress

Settings = ParamSpec("Settings")
Function = TypeVar("Function", bound=Callable[..., Any])


class Command(Protocol[Settings]):
    """A command that takes a model and returns a Result; its keywords are the fields of a dataclass of settings."""

    def __call__(
        self,
        model: ModelLike,
        output: str | os.PathLike[str] | None = None,
        progress: StageProgress | None = None,
        *args: Settings.args,
        **settings: Settings.kwargs,
    ) -> Result: ...


def takes(settings: Callable[Settings, Any]) -> Callable[[Callable[..., Result]], Command[Settings]]:
    """Show a function's `**settings` as the fields of a dataclass, in its signature and its type."""

    def decorate(function: Callable[..., Result]) -> Command[Settings]:
        return with_signature(function, settings)

    return decorate


def with_signature(function: Function, settings: Callable[..., Any]) -> Function:
    """The function with the keywords of `settings` instead of `**settings` in its signature."""

    def called(*args: Any, **keywords: Any) -> Any:
        return function(*args, **keywords)

    own = inspect.signature(function)
    named = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
    fields = inspect.signature(settings).parameters.values()
    update_wrapper(called, function)
    called.__signature__ = own.replace(parameters=[*named, *fields])  # type: ignore[attr-defined]
    return called  # type: ignore[return-value]

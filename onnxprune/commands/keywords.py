"""Types for commands whose keywords are the settings, so that editors complete them and type checkers check them."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, ParamSpec, Protocol, TypeVar

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
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
    """The function with the keywords of `settings` instead of `**settings` in its signature.

    Called with another keyword, it raises a SettingError that names the nearest one; settings that only other commands
    have are left to the function.
    """
    own = inspect.signature(function)
    named = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
    fields = inspect.signature(settings).parameters.values()
    known = [each.name for each in (*named, *fields)]

    def called(*args: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in known and name not in PruneConfig.__dataclass_fields__:
                nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise SettingError(
                    f"onnxprune.{function.__name__} has no setting {name!r}; do you mean {nearest!r}?"
                )
        return function(*args, **keywords)

    update_wrapper(called, function)
    called.__signature__ = own.replace(parameters=[*named, *fields])  # type: ignore[attr-defined]
    return called  # type: ignore[return-value]

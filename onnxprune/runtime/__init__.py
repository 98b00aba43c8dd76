"""Sparse kernels for onnxruntime: a custom-op library that runs the nodes of domain `onnxprune` faster.

Without the library, the same files run with the model-local functions in them. This package needs only onnxruntime.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

# The names of the shared library: on Linux and macOS, and on Windows.
_LIBRARY_NAMES = ("libonnxprune_runtime.so", "onnxprune_runtime.dll")
_REASON_FILE = "no-library.txt"


@dataclass(frozen=True)
class Availability:
    """Whether the kernels can be used, as a truth value, and if not, the reason."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


def available() -> Availability:
    """Whether the library was built when the package was installed, and if not, why."""
    if library_path() is not None:
        return Availability(True)
    reason = _find(_REASON_FILE)
    if reason is None:
        return Availability(False, "the package was installed without a build of the sparse kernels")
    return Availability(False, reason.read_text().strip())


def library_path() -> Path | None:
    """The path of the library, for onnxruntime in any language; None if it was not built.

    The environment variable ONNXPRUNE_LIBRARY selects another build.
    """
    if "ONNXPRUNE_LIBRARY" in os.environ:
        return Path(os.environ["ONNXPRUNE_LIBRARY"])
    return next((path for name in _LIBRARY_NAMES if (path := _find(name)) is not None), None)


def register(session_options: ort.SessionOptions) -> Availability:
    """Let sessions with these options use the kernels, if they are available.

    Raises:
        RuntimeError: onnxruntime cannot load the library.
    """
    path = library_path()
    if path is not None:
        session_options.register_custom_ops_library(str(path))
    return available()


def session(
    path: str | os.PathLike[str],
    session_options: ort.SessionOptions | None = None,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
    **arguments: Any,
) -> ort.InferenceSession:
    """An InferenceSession for the model at `path` that uses the kernels if they are available.

    Other arguments are passed to InferenceSession.
    """
    options = ort.SessionOptions() if session_options is None else session_options
    register(options)
    return ort.InferenceSession(os.fspath(path), options, providers=list(providers), **arguments)


def _find(name: str) -> Path | None:
    # An editable install has two folders for this package: the sources and the build.
    return next((path for folder in __path__ if (path := Path(folder) / name).exists()), None)

"""Sparse kernels for onnxruntime: a library of custom ops for files with nodes of domain `onnxprune`, which run without
it too by the model-local functions in them, and of an execution provider for any file with zeros in its weights.

This package needs only onnxruntime.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

# The names of the shared library: on Linux and macOS, and on Windows.
_LIBRARY_NAMES = ("libonnxprune_runtime.so", "onnxprune_runtime.dll")
_REASON_FILE = "no-library.txt"
# The name of the execution provider, in onnxruntime's list of a session's providers and in profiles.
PROVIDER = "OnnxpruneExecutionProvider"
CPU = ("CPUExecutionProvider",)
_registering = threading.Lock()


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
        # Absolute, since onnxruntime looks for a relative provider in its own folder.
        return Path(os.environ["ONNXPRUNE_LIBRARY"]).resolve()
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
    providers: Sequence[Any] | None = None,
    *,
    provider: bool = False,
    **arguments: Any,
) -> ort.InferenceSession:
    """An InferenceSession for the model at `path` that uses the kernels if they are available.

    With `provider` the model may be any file, with zeros in its weights. Other arguments are passed to
    InferenceSession; `providers` are onnxruntime's CPU provider where not given.

    Raises:
        RuntimeError: with `provider`, there is no execution provider to use, or others are asked for beside it.
    """
    options = ort.SessionOptions() if session_options is None else session_options
    if not provider:
        register(options)
        return ort.InferenceSession(
            os.fspath(path), options, providers=list(CPU if providers is None else providers), **arguments
        )
    if providers is not None:
        raise RuntimeError("onnxruntime takes either provider=True or providers=...: leave one of them out")
    add_provider(options)
    return ort.InferenceSession(os.fspath(path), options, **arguments)


def add_provider(
    session_options: ort.SessionOptions, kernels: str = "estimated", *, groups: bool = True
) -> None:
    """Let sessions with these options use the execution provider.

    Args:
        session_options: may have no other providers, and the sessions are given none.
        kernels: "estimated" runs the products by kernels that are estimated to gain, "all" every one with zeros enough.
        groups: convolutions that read each other run as one node, with what lies between them.

    Raises:
        RuntimeError: there is no library, or no execution provider in it, or onnxruntime is too old.
    """
    devices = _register_provider()
    session_options.add_provider_for_devices(
        devices, {"kernels": kernels, "groups": "on" if groups else "off"}
    )
    # It takes what is left anyway; where it is asked to, onnxruntime does not warn of it.
    session_options.add_provider_for_devices(_devices(*CPU), {})


def _register_provider() -> list[Any]:
    """What the provider runs on, which onnxruntime knows of from the library's registration on, once a process."""
    if not (kernels := available()):
        raise RuntimeError(f"there is no execution provider: {kernels.reason}")
    if not hasattr(ort, "register_execution_provider_library"):
        raise RuntimeError(
            f"onnxruntime {ort.__version__} takes no execution providers from libraries: update it to "
            "1.24 or later, or use the sparse kernels as custom operators (provider=False)"
        )
    with _registering:
        if not _devices(PROVIDER):
            try:
                ort.register_execution_provider_library("onnxprune", str(library_path()))
            except Exception as error:
                raise RuntimeError(_why_not_registered(str(error))) from None
        return _devices(PROVIDER)


def _devices(name: str) -> list[Any]:
    # One registration is as good as another, where there are several.
    return [device for device in ort.get_ep_devices() if device.ep_name == name][:1]


def _why_not_registered(message: str) -> str:
    if "CreateEpFactories" in message:
        return (
            f"{library_path()} was built without the execution provider: install onnxprune again, where headers "
            "of onnxruntime 1.24 or later are found"
        )
    return message.rsplit(" : ", 1)[-1]  # the library's own words behind those of onnxruntime


def _find(name: str) -> Path | None:
    # An editable install has two folders for this package: the sources and the build.
    return next((path for folder in __path__ if (path := Path(folder) / name).exists()), None)

"""Versions of packages, and packages that only some jobs need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version

from onnxprune.errors import MissingPackageError

PACKAGES = ("onnxprune", "onnx", "onnx-ir", "onnxruntime", "numpy", "torch")


def versions() -> dict[str, str]:
    """The installed versions of the packages that affect a result; torch is optional."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@contextmanager
def needs_torch(for_what: str) -> Iterator[None]:
    """A context for imports that need torch, which is an optional dependency.

    Raises:
        MissingPackageError: torch is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingPackageError(
            f"{for_what} needs torch, which is not installed: pip install 'onnxprune[train]'"
        ) from None

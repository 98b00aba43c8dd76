"""Versions of packages, and packages that only some jobs need."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from onnxprune.errors import MissingPackageError

PACKAGES = ("onnxprune", "onnx", "onnx-ir", "onnxruntime", "numpy", "torch")


def versions() -> dict[str, str]:
    """The installed versions of the packages that affect a result; torch is optional."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def require_torch(for_what: str) -> None:
    """Refuse what needs torch where it is not installed, before any work.

    Raises:
        MissingPackageError: it is not installed.
    """
    if find_spec("torch") is None:
        raise MissingPackageError(
            f"{for_what} needs torch, which is not installed: pip install 'onnxprune[train]'"
        )


def require_ray(for_what: str) -> None:
    """Refuse what needs Ray where it is not installed, before any work.

    Raises:
        MissingPackageError: it is not installed.
    """
    if find_spec("ray") is None:
        raise MissingPackageError(
            f"{for_what} needs Ray, which is not installed: pip install 'onnxprune[workers]'"
        )

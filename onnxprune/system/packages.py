"""Packages: their versions, and those that only some jobs need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version

from onnxprune.errors import MissingPackageError

PACKAGES = ("onnxprune", "onnx", "onnx-ir", "onnxruntime", "numpy", "torch")


def versions() -> dict[str, str]:
    """The versions that made a result; torch may be absent where nothing is fine-tuned."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@contextmanager
def needs_torch(for_what: str) -> Iterator[None]:
    """Imports of what needs torch, which not every installation has.

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

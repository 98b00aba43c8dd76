"""torchmetrics, which some metrics need."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType

from onnxprune.errors import MissingPackageError, first_line
from onnxprune.system.packages import import_torchvision, require_package


def import_torchmetrics(for_what: str) -> ModuleType:
    """torchmetrics; it imports torchvision where that is installed.

    Raises:
        MissingPackageError: it is not installed, or does not work.
    """
    require_package("torchmetrics", for_what)
    if find_spec("torchvision") is not None:
        import_torchvision(for_what)
    try:
        return importlib.import_module("torchmetrics")
    except Exception as error:
        raise MissingPackageError(
            f"{for_what} needs torchmetrics, which cannot be imported ({first_line(error)}): install it anew"
        ) from None

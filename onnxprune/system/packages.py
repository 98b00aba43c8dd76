"""Versions of packages, and packages that only some jobs need."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from onnxprune.errors import MissingPackageError, first_line

PACKAGES = ("onnxprune", "onnx", "onnx-ir", "onnxruntime", "numpy", "torch")
# Packages that are not called like their module.
NAMES = {"PIL": "pillow", "ray": "Ray", "tensorboard": "TensorBoard", "mlflow": "MLflow"}
# What to install for a module.
INSTALLED_BY = {
    "PIL": "'onnxprune[data]'",
    "pyarrow": "'onnxprune[data]'",
    "torchvision": "'onnxprune[data]'",
    "torchmetrics": "'onnxprune[metrics]'",
    "pycocotools": "'onnxprune[metrics]'",
    "ray": "'onnxprune[workers]'",
    "torch": "'onnxprune[train]'",
    "tensorboard": "'onnxprune[tensorboard]'",
    "mlflow": "'onnxprune[mlflow]'",
}
# Operators that torchvision's Python code describes when it is imported, before it looks for its compiled part.
TORCHVISION_OPERATORS = ("nms", "qnms")
NMS_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def versions() -> dict[str, str]:
    """The installed versions of the packages that affect a result; torch is optional."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def require_package(module: str, for_what: str) -> None:
    """Refuse what needs a package, by the name of its module, where it is not installed, before any work.

    Raises:
        MissingPackageError: it is not installed.
    """
    if find_spec(module) is None:
        package = NAMES.get(module, module)
        raise MissingPackageError(
            f"{for_what} needs {package}, which is not installed: pip install {INSTALLED_BY[module]}"
        )


def import_torchvision(for_what: str) -> ModuleType:
    """torchvision, also beside a build of torch that its compiled operators do not fit.

    Such a torchvision (of another index than torch, for CUDA beside torch for CPUs) fails on import, because operators
    that it describes are not there. Transforms and metrics do not call them, so their schemas are enough.

    Raises:
        MissingPackageError: torch or torchvision is not installed, or does not work.
    """
    for package in ("torch", "torchvision"):
        require_package(package, for_what)
    try:
        return _import_torchvision()
    except Exception as error:
        raise MissingPackageError(
            f"{for_what} needs torchvision, which cannot be imported ({first_line(error)}): install the build for your "
            "torch"
        ) from None


def _import_torchvision() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import torch

    for operator in TORCHVISION_OPERATORS:
        torch.library.define(f"torchvision::{operator}", NMS_SCHEMA)
    # What the failed import left behind would be taken for the modules.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision")

"""Make trained neural networks small, from the ONNX file alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.config import PruneConfig
    from onnxprune.errors import OnnxPruneError
    from onnxprune.jobs import prune, retrain
    from onnxprune.pipeline import Result
    from onnxprune.session import PruningSession
    from onnxprune.translate import to_torch

__all__ = ["OnnxPruneError", "PruneConfig", "PruningSession", "Result", "prune", "retrain", "to_torch"]

_HOMES = {
    "OnnxPruneError": "onnxprune.errors",
    "PruneConfig": "onnxprune.config",
    "PruningSession": "onnxprune.session",
    "Result": "onnxprune.pipeline",
    "prune": "onnxprune.jobs",
    "retrain": "onnxprune.jobs",
    "to_torch": "onnxprune.translate",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: a device that only runs models imports `onnxprune.runtime` alone."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

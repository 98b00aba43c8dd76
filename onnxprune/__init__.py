"""Make trained neural networks small, from the ONNX file alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.commands.prune import prune, retrain
    from onnxprune.commands.to_torch import to_torch
    from onnxprune.config.settings import PruneConfig
    from onnxprune.errors import OnnxPruneError
    from onnxprune.job.pipeline import Result
    from onnxprune.training.session import PruningSession

__all__ = ["OnnxPruneError", "PruneConfig", "PruningSession", "Result", "prune", "retrain", "to_torch"]

_HOMES = {
    "OnnxPruneError": "onnxprune.errors",
    "PruneConfig": "onnxprune.config.settings",
    "PruningSession": "onnxprune.training.session",
    "Result": "onnxprune.job.pipeline",
    "prune": "onnxprune.commands.prune",
    "retrain": "onnxprune.commands.prune",
    "to_torch": "onnxprune.commands.to_torch",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: a device that only runs models imports `onnxprune.runtime` alone."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

"""Make trained neural networks small and fast, from the ONNX file alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune import runtime as runtime
    from onnxprune.commands.bench import bench as bench
    from onnxprune.commands.compare import compare as compare
    from onnxprune.commands.export import export as export
    from onnxprune.commands.inspect import inspect as inspect
    from onnxprune.commands.pick import pick as pick
    from onnxprune.commands.prune import prune as prune
    from onnxprune.commands.pruning_session import pruning_session as pruning_session
    from onnxprune.commands.report import report as report
    from onnxprune.commands.retrain import retrain as retrain
    from onnxprune.commands.sensitivity import sensitivity as sensitivity
    from onnxprune.commands.sweep import sweep as sweep
    from onnxprune.commands.to_torch import to_torch as to_torch
    from onnxprune.commands.tune import tune as tune
    from onnxprune.config.settings import PruneConfig as PruneConfig
    from onnxprune.errors import OnnxPruneError as OnnxPruneError
    from onnxprune.job.result import Result as Result
    from onnxprune.job.sweep.results import Sweep as Sweep
    from onnxprune.training.session import PruningSession as PruningSession

    __version__: str

# The module of each public name, imported on first use: a device that only runs models needs `onnxprune.runtime` alone.
_HOMES = {
    "OnnxPruneError": "errors",
    "PruneConfig": "config.settings",
    "PruningSession": "training.session",
    "Result": "job.result",
    "Sweep": "job.sweep.results",
    "bench": "commands.bench",
    "compare": "commands.compare",
    "export": "commands.export",
    "inspect": "commands.inspect",
    "pick": "commands.pick",
    "prune": "commands.prune",
    "pruning_session": "commands.pruning_session",
    "report": "commands.report",
    "retrain": "commands.retrain",
    "sensitivity": "commands.sensitivity",
    "sweep": "commands.sweep",
    "to_torch": "commands.to_torch",
    "tune": "commands.tune",
}

__all__ = ["__version__", "runtime", *_HOMES]


# Type checkers know the names above; any other is an error.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """A public name, imported when it is used."""
        if name == "__version__":
            from importlib.metadata import version

            return version("onnxprune")
        if name == "runtime":
            return importlib.import_module("onnxprune.runtime")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

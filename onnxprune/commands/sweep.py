"""`onnxprune.sweep`: every combination of a grid of settings, each with several seeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, Protocol

from onnxprune.commands.keywords import with_signature
from onnxprune.config.declare import PathLike
from onnxprune.config.settings import PruneConfig
from onnxprune.job.sweep.job import sweep as perform
from onnxprune.job.sweep.results import Sweep
from onnxprune.model.files.io import ModelLike
from onnxprune.system.progress import StageProgress

Settings = ParamSpec("Settings")


class Sweeper(Protocol[Settings]):
    """The type of `sweep`: its keywords are its own and those of `PruneConfig`."""

    def __call__(
        self,
        model: ModelLike,
        output: str | os.PathLike[str] | None = None,
        progress: StageProgress | None = None,
        grid: PathLike | Mapping[str, Any] | None = None,
        seeds: int = 1,
        folder: PathLike | None = None,
        max_bytes: str | int | None = None,
        *args: Settings.args,
        **settings: Settings.kwargs,
    ) -> Sweep: ...


def _takes(settings: Callable[Settings, Any]) -> Callable[[Callable[..., Sweep]], Sweeper[Settings]]:
    def decorate(function: Callable[..., Sweep]) -> Sweeper[Settings]:
        return with_signature(function, settings)

    return decorate


@_takes(PruneConfig)
def sweep(
    model: ModelLike,
    output: str | os.PathLike[str] | None = None,
    progress: StageProgress | None = None,
    grid: PathLike | Mapping[str, Any] | None = None,
    seeds: int = 1,
    folder: PathLike | None = None,
    max_bytes: str | int | None = None,
    **settings: Any,
) -> Sweep:
    """Prune a model with every combination of a grid of settings and with several seeds, and compare them.

    `grid`: a recipe, or a mapping, in which settings may have a list of values, for example `{"rate": [0.8, 0.9],
    "schedule": ["iterative", "gradual"]}`. A setting that takes several values itself, such as `exclude`, needs a list
    of lists. `seeds`: how many, from `seed` on. `settings`: the fields of `PruneConfig` that all runs share, and
    `workers` and `resume` for the sweep. Each run is scored on validation data. The runs, the results and a chart are
    written to `folder`, by default beside the output, or in the working folder. With `output`, the best combination
    within `max_drop` or `max_loss` (of the mean drop) and `max_bytes` is written there, evaluated on `eval_data`.

    Raises:
        ValidationError: no combination is within the budget; the output is not changed.
        OnnxPruneError: what is wrong, and how to fix it. A run that fails is in `failed` of the result instead.
    """
    own = {"grid": grid, "seeds": seeds, "folder": folder, "max_bytes": max_bytes}
    target = None if output is None else Path(output)
    return perform(model, target, own | settings, progress or (lambda stage, fraction: None))

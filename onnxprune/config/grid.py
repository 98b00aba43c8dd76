"""The grid of a sweep: a recipe in which settings may have lists of values, and all their combinations."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from onnxprune.config.evaluation import EvaluationSettings
from onnxprune.config.pruning import AMOUNTS
from onnxprune.config.recipe import known_settings, load_recipe
from onnxprune.config.settings import PruneConfig, flag_of, job_settings
from onnxprune.config.sweep import SweepSettings
from onnxprune.config.training import CheckpointSettings
from onnxprune.errors import OnnxPruneError, SettingError

SEED = "seed"
# Each run has its own, in the folder of the sweep.
KEPT_BY_THE_SWEEP = ("checkpoint", "frontier")
OF_THE_SWEEP = {each.name for each in fields(SweepSettings)}
# Runs are compared by their scores, which must be of the same kind, on the same data.
SCORED_ALIKE = {each.name for part in (EvaluationSettings, CheckpointSettings) for each in fields(part)} | {
    "validation_data", "validation_split", "eval_data", "old_data", "log_to",
}  # fmt: skip
# A job's settings that a sweep takes, in each run or as common ones.
RUN_SETTINGS = tuple(
    each for each in fields(PruneConfig) if each.name not in {*OF_THE_SWEEP, *KEPT_BY_THE_SWEEP}
)


@dataclass(frozen=True)
class Combination:
    """Values of the axes, in JSON types, and the settings of its runs, for each seed."""

    values: dict[str, Any]
    configs: tuple[PruneConfig, ...]


@dataclass(frozen=True)
class Grid:
    """Every combination of the values of the axes; `axes`: settings with more than one value, in JSON types."""

    axes: dict[str, list[Any]]
    seeds: tuple[int, ...]
    combinations: tuple[Combination, ...]

    @property
    def configs(self) -> list[PruneConfig]:
        """The settings of all runs, in the order of the combinations."""
        return [config for combination in self.combinations for config in combination.configs]


def read_grid(given: Any) -> dict[str, Any]:
    """The settings in a grid, which is a recipe or a mapping: a value, or a list of values, for each.

    Raises:
        SettingError: it cannot be read, or has a setting that is unknown or that the sweep takes care of.
    """
    content = known_settings(given, "the grid") if isinstance(given, Mapping) else load_recipe(Path(given))
    name = "the grid" if isinstance(given, Mapping) else f"grid {os.fspath(given)}"
    refuse_kept(content, name)
    for key in OF_THE_SWEEP & content.keys():
        if isinstance(content[key], list | tuple):
            raise SettingError(f"{name}: {key} is for the whole sweep: give one value instead of a list")
    return content


def refuse_kept(settings: Mapping[str, Any], name: str) -> None:
    """Refuse settings that the sweep takes care of itself, in what `name` names.

    Raises:
        SettingError: there is one.
    """
    for key in KEPT_BY_THE_SWEEP:
        if settings.get(key) is not None:
            raise SettingError(f"{name}: a sweep saves the state of its runs in --folder: remove {key!r}")


def expand(grid: Mapping[str, Any], settings: Mapping[str, Any], seeds: int) -> Grid:
    """All combinations of a grid, checked; `settings` are common ones, which override those of the grid.

    `seeds`: the number of seeds from the common one on, unless the grid lists them.

    Raises:
        SettingError: an axis is ambiguous, empty, or given as a common setting too; or a combination is not possible.
    """
    axes = {name: values for name, value in grid.items() if (values := _values(name, value)) is not None}
    for name in axes.keys() & settings.keys():
        raise SettingError(f"{_flag(name)} has a list of values in the grid: remove one of the two")
    common = {name: value for name, value in grid.items() if name not in axes} | dict(settings)
    listed = axes.pop(SEED, None)
    if listed is not None and seeds > 1:
        raise SettingError("the grid has a list of seeds: remove --seeds, or the list")
    _check_amount(axes, common)
    names = [name for name, values in axes.items() if len(values) > 1]
    combinations: dict[str, Combination] = {}
    for picked in itertools.product(*axes.values()):
        chosen = dict(zip(axes, picked, strict=True))
        label = ", ".join(f"{name}={chosen[name]}" for name in names)
        try:
            config = job_settings(**common | chosen | ({} if listed is None else {SEED: listed[0]}))
            seeded = [config.seed + step for step in range(seeds)] if listed is None else listed
            configs = tuple(replace(config, seed=seed) for seed in seeded)
        except OnnxPruneError as error:
            raise SettingError(
                f"the combination {label} is not possible: {error}" if label else str(error)
            ) from None
        found = config.to_dict()
        key = json.dumps({name: found[name] for name in names})
        if key in combinations:
            raise SettingError(f"the grid has the combination {label} twice: remove one of the equal values")
        combinations[key] = Combination({name: found[name] for name in names}, configs)
    made = tuple(combinations.values())
    if len({config.seed for config in made[0].configs}) < len(made[0].configs):
        raise SettingError("the grid has a seed twice: remove one of them")
    varied = {name: _distinct(each.values[name] for each in made) for name in names}
    return Grid(varied, tuple(config.seed for config in made[0].configs), made)


def _values(name: str, value: Any) -> list[Any] | None:
    """The values of an axis; None for a setting with one value, which is a list where the setting takes several.

    Raises:
        SettingError: it is ambiguous, it has no values, or the setting cannot be an axis.
    """
    if not isinstance(value, list | tuple):
        return None
    if _takes_several(name):
        nested = [isinstance(each, list | tuple | Mapping) for each in value]
        if not any(nested):
            return None
        if not all(nested):
            raise SettingError(
                f"the grid's {name} has both values and lists: write [[A], [B, C]] to try A, then B with C; or "
                "[A, B] for both in every run"
            )
    if name in SCORED_ALIKE:
        raise SettingError(f"the grid's {name} is a list, but all runs are scored alike: give one value")
    if not value:
        raise SettingError(f"the grid's {name} is an empty list: give values, or remove it")
    return list(value)


def _takes_several(name: str) -> bool:
    return any(each.name == name and isinstance(each.default, tuple) for each in fields(PruneConfig))


def _check_amount(axes: Mapping[str, Sequence[Any]], common: Mapping[str, Any]) -> None:
    if not any(name in axes or common.get(name) is not None for name in AMOUNTS):
        flags = ", ".join(AMOUNTS)
        raise SettingError(
            f"the grid does not say how much to remove: give one of {flags}, such as rate: [0.8, 0.9]"
        )


def _flag(name: str) -> str:
    return next(flag_of(each) for each in fields(PruneConfig) if each.name == name)


def _distinct(values: Any) -> list[Any]:
    """Values of JSON types, each once, in order."""
    return list({json.dumps(value): value for value in values}.values())

"""Recipes: the settings of a job as a YAML file, and back."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import OutputError, SettingError, first_line
from onnxprune.system.files import write_text

# Numbers in base 60 of YAML 1.1.
BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 2:4 is a text, and not 124."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as in the base class)
        first: [("tag:yaml.org,2002:str", BASE_60), *resolvers]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load_recipe(path: Path) -> dict[str, Any]:
    """The settings in a recipe, by the names of `PruneConfig`'s fields; keys may be spelled like the flags.

    Raises:
        SettingError: it cannot be read, is not a mapping, or has an unknown key.
    """
    try:
        content = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise SettingError(f"recipe {path} cannot be read: {error.strerror}; give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(
            f"recipe {path} is not YAML: {first_line(error)}; write lines like 'rate: 0.9'"
        ) from None
    if not isinstance(content, dict):
        raise SettingError(f"recipe {path} has no settings: write lines like 'rate: 0.9'")
    return known_settings(content, f"recipe {path}")


def known_settings(content: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """The settings of a mapping that has any, by the names of `PruneConfig`'s fields; `name` is what holds it.

    Raises:
        SettingError: a key is unknown.
    """
    known = [setting.name for setting in fields(PruneConfig)]
    settings = {}
    for key, value in content.items():
        setting = str(key).replace("-", "_")
        if setting not in known:
            nearest = difflib.get_close_matches(setting, known, n=1, cutoff=0.0)[0]
            raise SettingError(f"{name}: unknown setting {key!r}; do you mean {nearest!r}?")
        if value is not None:
            settings[setting] = value
    return settings


def recipe_text(settings: Mapping[str, Any]) -> str:
    """The YAML text of the settings in `PruneConfig.to_dict()`."""
    pairs = [f"{selector}={rate}" for selector, rate in settings["layer_rate"]]
    return yaml.safe_dump({**settings, "layer_rate": pairs}, sort_keys=False)


def save_recipe(path: Path, config: PruneConfig) -> None:
    """Write all settings of a job; `load_recipe` reads them back.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        write_text(path, recipe_text(config.to_dict()))
    except OSError as error:
        raise OutputError(f"--save-config {path} cannot be written: {error.strerror}") from error

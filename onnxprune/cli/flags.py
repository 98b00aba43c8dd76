"""Settings as flags, and the help that shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields
from typing import Any

import click

from onnxprune.config.declare import AUTO
from onnxprune.config.presets import PRESETS as TARGETS
from onnxprune.config.settings import PARTS, RetrainSettings, flag_of
from onnxprune.config.sweep import SweepSettings
from onnxprune.data.images.augment import AUGMENTATIONS
from onnxprune.data.images.steps import PRESETS
from onnxprune.data.readers import forms
from onnxprune.evaluation.metrics import metrics_text
from onnxprune.job.store import FORMATS
from onnxprune.pruning.criteria import CRITERIA

CONTEXT = {
    "help_option_names": ["-h", "--help"],
    # ONNX's other tools write --snake_case: both spellings work.
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 100,
}

# Settings whose choices are the entries of a table, each with its help.
TABLES: Mapping[str, Mapping[str, Any]] = {"criteria": CRITERIA, "formats": FORMATS, "targets": TARGETS}
# What help texts name in braces: entries of tables that are no choices, because they take numbers or are not alone.
ENTRIES: Mapping[str, Callable[[], str]] = {
    "data_forms": forms,
    "metrics": metrics_text,
    "presets": lambda: ", ".join(PRESETS),
    "augmentations": lambda: _with_help(AUGMENTATIONS),
}
OTHER = "Options"


class _WholeOrAuto(click.ParamType):
    """A whole number, or "auto", which is None."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == AUTO else click.INT.convert(value, param, ctx)


WHOLE_OR_AUTO = _WholeOrAuto()


def settings_of(config: type) -> Iterator[Field[Any]]:
    """The settings of a dataclass in the order of the help."""
    remaining = {each.name: each for each in fields(config)}
    for part in (*PARTS, RetrainSettings):
        for each in fields(part):
            if each.name in remaining:
                yield remaining.pop(each.name)


def option_of(setting: Field[Any]) -> click.Option:
    """The flag of a setting: --kebab-case, or --flag/--no-flag for a boolean."""
    flag, metadata = flag_of(setting), setting.metadata
    arguments: dict[str, Any] = {"help": help_of(setting), "default": setting.default}
    if str(setting.type).startswith("bool"):
        known = setting.default is not None
        return click.Option([f"{flag}/--no-{flag[2:]}", setting.name], show_default=known, **arguments)
    if "choices" in metadata or "table" in metadata:
        arguments["type"] = click.Choice(list(metadata.get("choices") or TABLES[metadata["table"]]))
    elif str(setting.type).startswith("int"):
        arguments["type"] = WHOLE_OR_AUTO if "None" in str(setting.type) else int
    return click.Option(
        [flag, *metadata.get("aliases", ()), setting.name],
        metavar=metadata["metavar"],
        multiple=isinstance(setting.default, tuple),
        show_default=setting.default not in (None, ()),
        **arguments,
    )


def flag_like(config: type, name: str) -> Callable[[Any], Any]:
    """A decorator that gives another command the flag of a setting: a text, several of them, or a whole number."""
    setting = next(setting for setting in fields(config) if setting.name == name)
    default = setting.default
    return click.option(
        flag_of(setting),
        metavar=setting.metadata["metavar"],
        default=default,
        multiple=isinstance(default, tuple),
        type=type(default) if isinstance(default, int) else None,
        show_default=default not in (None, ()),
        help=help_of(setting),
    )


def help_of(setting: Field[Any]) -> str:
    """The help text of a setting, with the entries of its table, or of those that it names in braces."""
    text, table = setting.metadata["help"], setting.metadata.get("table")
    if table is None:
        return str(text).format(**{name: entries() for name, entries in ENTRIES.items()})
    entries = _with_help(TABLES[table])
    return f"{text.removesuffix('.')}. {entries[0].upper()}{entries[1:]}."


def _with_help(table: Mapping[str, Any]) -> str:
    """The entries of a table, each with its help."""
    return "; ".join(f"{name}: {entry.help}" for name, entry in table.items())


class GroupedCommand(click.Command):
    """A command whose help shows the settings of a job under the headings of their parts."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under the headings of their parts; options that are not settings come last."""
        own = {parameter.name for parameter in self.params}
        headings = {
            each.name: part.heading  # type: ignore[attr-defined]
            # A sweep's own settings come under its heading, as the grid tells it from other commands.
            for part in (*PARTS, *([SweepSettings] if "grid" in own else []))
            for each in fields(part)
        }
        sections: dict[str, list[tuple[str, str]]] = {}
        others: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                heading = headings.get(parameter.name or "")
                (others if heading is None else sections.setdefault(heading, [])).append(record)
        for heading, records in (*sections.items(), (OTHER, others)):
            with formatter.section(heading):
                formatter.write_dl(records)

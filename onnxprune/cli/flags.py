"""Settings as flags, and the help that shows them."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

import click

from onnxprune.config.settings import PruneConfig

CONTEXT = {
    "help_option_names": ["-h", "--help"],
    # ONNX's other tools write --snake_case: both spellings work.
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 100,
}


def option_of(setting: Field[Any]) -> click.Option:
    """The flag of a setting: --kebab-case, or a pair for a switch."""
    name = setting.name.replace("_", "-")
    arguments: dict[str, Any] = {"help": setting.metadata["help"], "default": setting.default}
    if isinstance(setting.default, bool):
        return click.Option([f"--{name}/--no-{name}", setting.name], show_default=True, **arguments)
    if "choices" in setting.metadata:
        synonyms = setting.metadata.get("synonyms", ())
        arguments["type"] = click.Choice([*setting.metadata["choices"], *synonyms])
    elif str(setting.type).startswith("int"):
        arguments["type"] = int
    return click.Option(
        [f"--{name}", *setting.metadata.get("aliases", ()), setting.name],
        metavar=setting.metadata["metavar"],
        multiple=isinstance(setting.default, tuple),
        show_default=setting.default not in (None, ()),
        **arguments,
    )


class GroupedCommand(click.Command):
    """A command whose help shows the settings of a job under the headings that they are declared under."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = {setting.name: setting.metadata.get("group") for setting in fields(PruneConfig)}
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        heading = "Options"
        for parameter in self.get_params(ctx):
            heading = headings.get(parameter.name or "", "Options") or heading
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                sections.setdefault(heading, []).append(record)
        sections["Options"] = sections.pop("Options")
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

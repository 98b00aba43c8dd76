"""The text of `onnxprune --help`: the commands, and the most used flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from onnxprune.cli.flags import CONTEXT, option_of, settings_of
from onnxprune.config.settings import PruneConfig

USAGE = "IN.onnx OUT.onnx --rate R [--data DATA] [OPTIONS]"
EXAMPLES = """\
  onnxprune in.onnx out.onnx --rate 0.9
  onnxprune in.onnx out.onnx --rate 0.9 --data train.npz --eval-data test.npz
  onnxprune in.onnx out.onnx --max-drop 0.5% --data train.npz --eval-data test.npz
  onnxprune in.onnx out.onnx --rate 0.8 --calibration-data inputs.npz
  onnxprune in.onnx out.onnx --rate 0.5 --pattern channel"""


def overview(commands: Mapping[str, click.Command]) -> str:
    """The text of `onnxprune --help`."""
    context = click.Command("onnxprune", context_settings=CONTEXT).make_context("onnxprune", [])
    formatter = context.make_formatter()
    formatter.write_usage("onnxprune", USAGE)
    formatter.write_usage("onnxprune", "COMMAND ...", prefix="       ")
    formatter.write_paragraph()
    formatter.write_text(
        "Prune an ONNX model, fine-tune it on data, evaluate it in onnxruntime, and write OUT.onnx."
    )
    with formatter.section("Commands"):
        formatter.write_dl(
            [(name, command.get_short_help_str(limit=90)) for name, command in commands.items()]
        )
    with formatter.section("Most used options (all of them: onnxprune prune --help)"):
        formatter.write_dl(list(_rows()))
    with formatter.section("Examples"):
        formatter.write(f"{EXAMPLES}\n")
    return formatter.getvalue().rstrip("\n")


def _rows() -> Iterator[tuple[str, str]]:
    """Flag and short text of the most used settings, with their choices."""
    for setting in settings_of(PruneConfig):
        if text := setting.metadata.get("common"):
            option = option_of(setting)
            choices = option.type.choices if isinstance(option.type, click.Choice) else ()
            name = setting.metadata["metavar"] or "NAME"
            # Of two spellings the shorter one: --for, and not --target.
            yield f"{min(option.opts, key=len)} {name}", f"{text}: {', '.join(choices)}" if choices else text

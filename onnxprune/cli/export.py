"""The command that writes a model for other tools: export."""

from __future__ import annotations

import click
from rich.markup import escape

from onnxprune.cli.flags import CONTEXT, flag_like, option_of
from onnxprune.cli.terminal import console
from onnxprune.commands.export import FORMATS
from onnxprune.commands.export import export as run_export
from onnxprune.config.data import DataSettings
from onnxprune.config.model import ModelSettings
from onnxprune.config.output import OutputSettings
from onnxprune.reports.text import bytes_text

EPILOG = """\b
Examples:
  onnxprune export pruned.onnx plain.onnx
  onnxprune export pruned.onnx static.onnx --static --opset 17
  onnxprune export pruned.onnx static.onnx --input-shape input_ids:1,128
"""
EXPORTED = {each.name: each for each in OutputSettings.__dataclass_fields__.values()}


@click.command(
    context_settings=CONTEXT,
    epilog=EPILOG,
    params=[option_of(EXPORTED[name]) for name in ("static", "opset", "annotations")],
    short_help="Write a model as plain operators, for other tools.",
)
@click.argument("source", metavar="IN.onnx")
@click.argument("output", metavar="OUT.onnx")
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="Weights with zeros in place, or as ONNX sparse_initializer (coo).",
)
@flag_like(DataSettings, "input_shape")
@flag_like(ModelSettings, "allow_links")
@flag_like(ModelSettings, "custom_ops")
def export(
    source: str,
    output: str,
    format: str,
    static: bool,
    input_shape: tuple[str, ...],
    opset: int | None,
    annotations: bool,
    allow_links: tuple[str, ...],
    custom_ops: tuple[str, ...],
) -> None:
    """Write a model, pruned or not, as standard operators without functions, checked in onnxruntime."""
    found = run_export(
        source,
        output,
        format=format,
        static=static,
        input_shape=input_shape,
        opset=opset,
        annotations=annotations,
        allow_links=allow_links,
        custom_ops=custom_ops,
    )
    screen = console()
    sizes = f"{bytes_text(found.bytes_before)} -> {bytes_text(found.bytes)}"
    screen.print(escape(f"{found.path}: {sizes}, opset {found.opset}, inputs {', '.join(found.inputs)}"))
    screen.print(
        f"Same outputs in onnxruntime on random inputs: largest relative difference {found.difference:.2g}."
    )
    for note in found.notes:
        screen.print(f"- {escape(note)}")

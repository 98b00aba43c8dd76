"""What a model holds, as tables for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape

from onnxprune.cli.tables.common import left_alone, table
from onnxprune.commands.inspect import Inspection
from onnxprune.reports.text import bytes_text, shape_text


def inspection_tables(found: Inspection) -> RenderableType:
    """What goes in and out of a model, its weights, their density, and why some cannot be pruned."""
    title = f"{found.name}: {bytes_text(found.bytes)}, opset {found.opset or 'unknown'}"
    weights = table(title, "weight", "operator", "node", "shape", "weights", "non-zero", "density", numeric=4)
    for weight in found.weights:
        names = escape(weight.name), weight.op_type, escape(", ".join(weight.nodes))
        numbers = f"{weight.size:,}", f"{weight.nonzero:,}", f"{weight.density:.1%}"
        weights.add_row(*names, shape_text(weight.shape), *numbers)
    ends = [
        escape(f"{way} {text}")
        for way, texts in (("in ", found.inputs), ("out", found.outputs))
        for text in texts
    ]
    return Group(*ends, weights, *left_alone(found.unprunable))

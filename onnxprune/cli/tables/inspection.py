"""The weights of a model as tables for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape

from onnxprune.cli.tables.common import table, unprunable_table
from onnxprune.commands.inspect import Inspection
from onnxprune.reports.text import bytes_text, shape_text


def inspection_tables(found: Inspection) -> RenderableType:
    """Inputs and outputs of a model, its weights with their density, and those that cannot be pruned."""
    packed = "" if found.gzip_bytes is None else f" ({bytes_text(found.gzip_bytes)} compressed by gzip)"
    title = f"{found.name}: {bytes_text(found.bytes)}{packed}, opset {found.opset or 'unknown'}"
    weights = table(title, "weight", "operator", "node", "shape", "weights", "non-zero", "density", numeric=4)
    for weight in found.weights:
        names = escape(weight.name), weight.op_type, escape(", ".join(weight.nodes))
        numbers = f"{weight.size:,}", f"{weight.nonzero:,}", f"{weight.density:.1%}"
        weights.add_row(*names, shape_text(weight.shape), *numbers)
    values = [
        escape(f"{kind} {text}")
        for kind, texts in (("input ", found.inputs), ("output", found.outputs))
        for text in texts
    ]
    return Group(*values, weights, *unprunable_table(found.unprunable))

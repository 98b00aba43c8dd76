"""The measurements and the choice of `onnxprune tune` as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from onnxprune.commands.tune import Tuning
from onnxprune.reports.text import bytes_text, shape_text
from onnxprune.runtime.cpu import cpu_name, instruction_set


def tuning_tables(tuning: Tuning) -> RenderableType:
    """Every sparse node with its latency and its kernel, then the whole graph."""
    return Group(_nodes(tuning), *map(escape, _graph(tuning)))


def _nodes(tuning: Tuning) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("node", "operator", "kernel"):
        table.add_column(heading, overflow="fold")
    for heading in ("shape", "density", "dense ms", "sparse ms"):
        table.add_column(heading, justify="right")
    for node in tuning.choice.nodes:
        times = (node.timing.dense, node.timing.other) if node.timing else ()
        table.add_row(
            escape(node.name),
            node.op_type,
            "sparse" if node.by_kernel else "dense",
            shape_text(node.shape),
            f"{node.density:.1%}",
            *(f"{seconds * 1e3:.3f}" for seconds in times),
        )
    return table


def _graph(tuning: Tuning) -> Iterator[str]:
    before, after = tuning.choice.before, tuning.choice.after
    assert before is not None and after is not None
    inputs = ", ".join(
        f"{name} [{', '.join(map(str, shape))}]" for name, shape in tuning.input_shapes.items()
    )
    count = sum(node.by_kernel for node in tuning.choice.nodes)
    yield (
        f"{count} of {len(tuning.choice.nodes)} sparse nodes use the sparse kernels "
        f"({instruction_set()}, {cpu_name()})."
    )
    yield (
        f"The whole graph on {inputs}: dense {after.dense * 1e3:.3f} ms, tuned {after.other * 1e3:.3f} ms, "
        f"{after.ratio:.2f} times as fast as dense ({before.ratio:.2f} times before tuning)."
    )
    yield f"File: {bytes_text(tuning.bytes_before)} -> {bytes_text(tuning.bytes_after)}."

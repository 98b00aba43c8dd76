"""What `onnxprune tune` measured and chose, as tables for the terminal."""

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
    """Every sparse node with its times alone and where it runs, then the whole graph before and after."""
    return Group(_nodes(tuning), *map(escape, _whole(tuning)))


def _nodes(tuning: Tuning) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("node", "operator", "runs"):
        table.add_column(heading, overflow="fold")
    for heading in ("shape", "density", "dense ms", "kernel ms"):
        table.add_column(heading, justify="right")
    for node in tuning.choice.nodes:
        times = (node.timing.dense, node.timing.other) if node.timing else ()
        table.add_row(
            escape(node.name),
            node.op_type,
            "by kernel" if node.by_kernel else "dense",
            shape_text(node.shape),
            f"{node.density:.1%}",
            *(f"{seconds * 1e3:.3f}" for seconds in times),
        )
    return table


def _whole(tuning: Tuning) -> Iterator[str]:
    before, after = tuning.choice.before, tuning.choice.after
    assert before is not None and after is not None
    inputs = ", ".join(
        f"{name} [{', '.join(map(str, shape))}]" for name, shape in tuning.input_shapes.items()
    )
    count = sum(node.by_kernel for node in tuning.choice.nodes)
    yield f"{count} of {len(tuning.choice.nodes)} sparse nodes run by kernels ({instruction_set()}, {cpu_name()})."
    yield (
        f"The whole graph on {inputs}: dense {after.dense * 1e3:.3f} ms, tuned {after.other * 1e3:.3f} ms, "
        f"{after.ratio:.2f} times faster than dense; as it came {before.ratio:.2f} times."
    )
    yield f"File: {bytes_text(tuning.bytes_before)} -> {bytes_text(tuning.bytes_after)}."

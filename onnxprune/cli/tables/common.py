"""Parts that several tables share."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from onnxprune.model.weights import Unprunable


def table(title: str, *columns: str, numeric: int = 3) -> Table:
    """An empty table; the last `numeric` columns are aligned to the right."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(
            column, justify="right" if index >= len(columns) - numeric else "left", overflow="fold"
        )
    return made


def unprunable_table(operands: Sequence[Unprunable]) -> list[Table]:
    """A table of the weights that are left as they are, with the reason; no table if there are none."""
    if not operands:
        return []
    made = table("left as they are", "weight", "operator", "node", "reason", "weights", numeric=1)
    for operand in operands:
        size = f"{operand.size:,}" if operand.size else ""
        made.add_row(*map(escape, (operand.weight, operand.op_type, operand.node, operand.reason, size)))
    return [made]

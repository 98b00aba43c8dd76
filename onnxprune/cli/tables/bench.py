"""The rows of a benchmark as tables for the terminal, and as JSON types."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import onnxruntime as ort
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from onnxprune.cli.tables.common import table
from onnxprune.commands.bench import Benchmark
from onnxprune.latency.engines import KERNELS
from onnxprune.latency.integers import DENSE_INT8
from onnxprune.latency.race import Row
from onnxprune.reports.text import bytes_text
from onnxprune.runtime.cpu import cpu_name, instruction_set


def machine() -> str:
    """The CPU, the kernels' instruction set and onnxruntime's version, for the title of a table."""
    return f"{cpu_name()}, kernels for {instruction_set()}, onnxruntime {ort.__version__}"


def benchmark_tables(found: Benchmark, suite: str | None) -> RenderableType:
    """The rows of two files or of a suite, and the networks that were skipped."""
    if suite is None:
        return files_table(found.rows)
    memory = [memory_table(found.rows)] if suite == "models" else []
    return Group(suite_tables(found.rows), *memory, *found.skipped)


def suite_tables(rows: Sequence[Row]) -> RenderableType:
    """One line per row: the latency of dense onnxruntime and the speedup of each engine; then geometric means."""
    engines = list(dict.fromkeys(name for row in rows for name in (*row.seconds, *row.failures)))[1:]
    # How much sparse int8 gains over dense int8, beside what each gains over floats.
    own = [engine for engine in engines if engine.endswith(" int8") and engine.startswith(KERNELS.name)]
    over = [f"{engine} / dense int8" for engine in own]
    made = _table(machine(), "", "density", "threads", "dense ms", *engines, *over)

    def ratios(row: Row) -> list[float | None]:
        dense = row.ratios.get(DENSE_INT8)
        found = [row.ratios.get(engine) for engine in own]
        return [
            *(row.ratios.get(engine) for engine in engines),
            *(None if dense is None or ratio is None else ratio / dense for ratio in found),
        ]

    for row in rows:
        made.add_row(*_ends(row), *map(_times, ratios(row)))
    made.add_section()
    for density in dict.fromkeys(row.density for row in rows):
        for threads in dict.fromkeys(row.threads for row in rows):
            same = [row for row in rows if row.density == density and row.threads == threads]
            means = [_mean(column) for column in zip(*map(ratios, same), strict=True)]
            label = "" if density is None else f"{density:.0%}"
            made.add_row("geometric mean", label, str(threads), "", *map(_times, means))
    failures = dict.fromkeys(
        f"{row.name}, {name}: {reason}" for row in rows for name, reason in row.failures.items()
    )
    return Group(made, *map(escape, failures))


def memory_table(rows: Sequence[Row]) -> RenderableType:
    """For each row and engine: seconds to load, memory of the model, its peak, and the size of the file."""
    made = _table("", "", "engine", "threads", "load s", "memory", "peak memory", "file")
    for row in rows:
        for engine in row.seconds:
            before, after = row.memory[engine]
            values = [
                "-" if used is None or base is None else bytes_text(max(used - base, 0))
                for used, base in ((after.now, before.now), (after.peak, before.now))
            ]
            made.add_row(
                escape(row.name),
                engine,
                str(row.threads),
                f"{row.loads[engine]:.2f}",
                *values,
                bytes_text(row.bytes[engine]),
            )
    return made


def files_table(rows: Sequence[Row]) -> RenderableType:
    """Two files side by side, one line for each measurement and number of threads."""
    names = list(rows[0].seconds)
    made = _table(machine(), "", "threads", *names)
    for row in rows:
        threads = str(row.threads or "all")
        for label, percent in (("latency, median, ms", 50), ("latency, 90th percentile, ms", 90)):
            made.add_row(
                label, threads, *(f"{np.percentile(row.runs[name], percent) * 1e3:.3f}" for name in names)
            )
        made.add_row("speedup", threads, *(_times(row.ratios[name]) for name in names))
    return Group(made, memory_table(rows[:1]))


def to_json(rows: Iterable[Row]) -> dict[str, Any]:
    """All measurements of the rows in JSON types, with the name of the machine."""
    return {"machine": machine(), "rows": [asdict(row) for row in rows]}


def _table(title: str, *columns: str) -> Table:
    return table(title, *columns, numeric=len(columns) - 1)


def _ends(row: Row) -> tuple[str, str, str, str]:
    density = "" if row.density is None else f"{row.density:.0%}"
    dense = next(iter(row.seconds.values()))
    return escape(row.name), density, str(row.threads), f"{dense * 1e3:.3f}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _mean(ratios: Iterable[float | None]) -> float | None:
    known = [math.log(ratio) for ratio in ratios if ratio is not None]
    return math.exp(statistics.fmean(known)) if known else None

"""What `onnxprune bench` runs: rows, and the table that shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Group, RenderableType

from onnxprune.bench.engines import KERNELS, OTHERS, forced
from onnxprune.bench.files import bench_files
from onnxprune.bench.layers import DENSITIES, LAYERS, bench_layers
from onnxprune.bench.models import SEARCH_SECONDS, bench_models
from onnxprune.bench.networks import NETWORKS, MissingPackageError
from onnxprune.bench.race import Row
from onnxprune.cli.tables.bench import files_table, memory_table, suite_tables
from onnxprune.errors import SettingError
from onnxprune.sparse.choose import require_kernels

Result = tuple[list[Row], RenderableType]


def run_files(
    before: str, after: str, shapes: Mapping[str, Sequence[int]], threads: Sequence[int] = ()
) -> Result:
    """`bench DENSE.onnx PRUNED.onnx`."""
    require_kernels()
    rows = list(bench_files(Path(before), Path(after), shapes, threads or (1, 0)))
    return rows, files_table(rows)


def run_suite(
    suite: str,
    *,
    only: Sequence[str] = (),
    density: Sequence[float] = (),
    batch: Sequence[int] = (1,),
    isa: Sequence[str] = (),
    threads: Sequence[int] = (),
    seconds: float = SEARCH_SECONDS,
    progress: Callable[[str, float], None] = lambda row, fraction: None,
) -> Result:
    """`bench --suite`, `only` the rows whose name is like one of these."""
    require_kernels()
    if not any(
        _like(name, only) for name in ([layer.name for layer in LAYERS] if suite == "layers" else NETWORKS)
    ):
        raise SettingError(
            f"--only {' '.join(only)} is like no row of the suite: leave it out to see them all"
        )
    engines = (KERNELS, *map(forced, isa), *OTHERS)
    threads = threads or (1, 2)
    rows: list[Row] = []
    if suite == "layers":
        layers = [layer.at(size) for layer in LAYERS if _like(layer.name, only) for size in batch]
        densities = density or DENSITIES
        for row in bench_layers(layers, densities, threads, engines):
            rows.append(row)
            progress(row.name, len(rows) / (len(layers) * len(densities) * len(threads)))
        return rows, suite_tables(rows)
    networks = {name: network for name, network in NETWORKS.items() if _like(name, only)}
    left_out = []
    for done, (name, network) in enumerate(networks.items()):
        progress(name, done / len(networks))
        try:
            rows += bench_models({name: network}, threads, engines, seconds)
        except MissingPackageError as missing:
            left_out.append(f"{name} is left out: {missing}")
    return rows, Group(suite_tables(rows), memory_table(rows), *left_out)


def _like(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

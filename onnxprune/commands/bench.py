"""`onnxprune.bench`: latency and memory of a model and its pruned version, or of suites of layers and networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from onnxprune.config.checks import input_shapes
from onnxprune.config.declare import PathLike, ShapesLike
from onnxprune.errors import MissingPackageError, SettingError
from onnxprune.latency.engines import KERNELS, OTHERS, forced
from onnxprune.latency.files import bench_files
from onnxprune.latency.layers import DENSITIES, LAYERS, bench_layers
from onnxprune.latency.models import SEARCH_SECONDS, bench_models
from onnxprune.latency.networks import NETWORKS
from onnxprune.latency.race import Row
from onnxprune.pruning.blocks import BLOCK_PATTERNS
from onnxprune.sparse.choose import require_kernels
from onnxprune.system.trust import Paths, trust


@dataclass(frozen=True)
class Benchmark:
    """The rows of a benchmark, and a sentence for each network that was skipped."""

    rows: list[Row]
    skipped: tuple[str, ...] = ()


def bench(
    baseline: str | os.PathLike[str] | None = None,
    pruned: PathLike | None = None,
    *,
    suite: str | None = None,
    input_shape: ShapesLike = (),
    only: Sequence[str] = (),
    density: Sequence[float] = (),
    batch: Sequence[int] = (1,),
    isa: Sequence[str] = (),
    threads: Sequence[int] = (),
    pattern: str = "unstructured",
    quantize: str = "none",
    seconds: float = SEARCH_SECONDS,
    progress: Callable[[str, float], None] = lambda row, fraction: None,
    allow_links: Paths = (),
    custom_ops: Paths = (),
) -> Benchmark:
    """Time two files side by side, or the rows of a `suite` ("layers" or "models") whose names match `only` (globs).

    `density`: fractions of the weights kept, in the place of a network's own; `batch` (sizes) is for layers,
    `input_shape` for files. `isa`: instruction sets whose kernels are also timed; `threads` of onnxruntime, one run for
    each (0: its own choice); `pattern`: 4x1 or 1x4 removes whole blocks; `quantize="int8"` also times the suite
    quantized by onnxruntime's `quantize_static`, dense and sparse;
    `seconds` of searching for the fastest kernels of each network. `allow_links`, `custom_ops`: as in `prune`.

    Raises:
        SettingError: neither two files nor a suite are given, or `only` matches no row.
        OnnxPruneError: what is wrong, and how to fix it.
    """
    require_kernels()
    trust(allow_links, custom_ops)
    if suite is None:
        if baseline is None or pruned is None:
            raise SettingError("give two files, DENSE.onnx PRUNED.onnx, or --suite layers or models")
        shapes = input_shapes(input_shape)
        return Benchmark(list(bench_files(Path(baseline), Path(pruned), shapes, threads or (1, 0))))
    names = [layer.name for layer in LAYERS] if suite == "layers" else list(NETWORKS)
    if not any(_like(name, only) for name in names):
        raise SettingError(
            f"--only {' '.join(only)} matches no row of the suite: remove it to run all of them"
        )
    engines = (KERNELS, *map(forced, isa), *OTHERS)
    threads = threads or (1, 2)
    blocks = BLOCK_PATTERNS.get(pattern)
    rows: list[Row] = []
    if suite == "layers":
        layers = [layer.at(size) for layer in LAYERS if _like(layer.name, only) for size in batch]
        densities = density or DENSITIES
        for row in bench_layers(layers, densities, threads, engines, blocks, quantize == "int8"):
            rows.append(row)
            progress(row.name, len(rows) / (len(layers) * len(densities) * len(threads)))
        return Benchmark(rows)
    networks = {name: network for name, network in NETWORKS.items() if _like(name, only)}
    skipped = []
    for done, (name, network) in enumerate(networks.items()):
        progress(name, done / len(networks))
        try:
            rows += bench_models(
                {name: network}, threads, engines, seconds, density, blocks, quantize == "int8"
            )
        except MissingPackageError as missing:
            skipped.append(f"{name} is skipped: {missing}")
    return Benchmark(rows, tuple(skipped))


def _like(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

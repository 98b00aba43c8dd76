"""The benchmark of two files: a model and its pruned version, in stock onnxruntime and with the sparse kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from onnxprune.data.random import random_feeds
from onnxprune.data.specs import common_inputs
from onnxprune.latency.engines import DENSE, KERNELS, Worker
from onnxprune.latency.race import Entrant, Row, race
from onnxprune.model.files.io import load

BASELINE, STOCK, WITH_KERNELS = "baseline", "pruned, stock", "pruned, kernels"
# Largest difference between the kernels and stock onnxruntime on the same file, relative to the largest output.
TOLERANCE = 1e-3


def bench_files(
    baseline: Path,
    pruned: Path,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    threads: Sequence[int] = (1, 0),
) -> Iterator[Row]:
    """Time a model and its pruned version at each number of threads (0: the choice of onnxruntime).

    The outputs of the two models differ and are not compared. Those with the kernels are compared with those of the
    same file without.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it.
    """
    specs = common_inputs(load(baseline)[0], load(pruned)[0], (str(baseline), str(pruned)))
    feeds = random_feeds(specs, input_shapes or {})
    for count in threads:
        entrants = {
            BASELINE: Entrant(Worker(DENSE), baseline),
            STOCK: Entrant(Worker(DENSE), pruned),
            WITH_KERNELS: Entrant(Worker(KERNELS), pruned, own=True),
        }
        try:
            yield race(
                pruned.name,
                None,
                count,
                entrants,
                feeds,
                tolerance=TOLERANCE,
                references={STOCK: STOCK, WITH_KERNELS: STOCK},
            )
        finally:
            for entrant in entrants.values():
                entrant.worker.close()

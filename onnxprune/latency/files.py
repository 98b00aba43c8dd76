"""Two files side by side: a model before and after pruning, without the kernels and with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from onnxprune.data.random import random_feeds
from onnxprune.data.specs import input_specs
from onnxprune.errors import SettingError
from onnxprune.latency.engines import DENSE, KERNELS, Worker
from onnxprune.latency.race import Entrant, Row, race
from onnxprune.model.io import load

BEFORE, STOCK, OURS = "before", "after, stock", "after, kernels"
# Of the largest output of the pruned model in stock onnxruntime; what the kernels make of the same file.
TOLERANCE = 1e-3


def bench_files(
    before: Path,
    after: Path,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    threads: Sequence[int] = (1, 0),
) -> Iterator[Row]:
    """Time a model before and after pruning at each number of threads (0: as many as onnxruntime takes).

    The pruned model's outputs are not the other's, so that none is held against it; with the kernels they are held
    against those of the same file without.

    Raises:
        OnnxPruneError: what is wrong, in a sentence that says the mend.
    """
    specs = [input_specs(load(path)[0]) for path in (before, after)]
    if [spec.name for spec in specs[0]] != [spec.name for spec in specs[1]]:
        raise SettingError(f"{before} and {after} have other inputs: give a model and its pruned form")
    feeds = random_feeds(specs[0], input_shapes or {})
    for count in threads:
        entrants = {
            BEFORE: Entrant(Worker(DENSE), before),
            STOCK: Entrant(Worker(DENSE), after),
            OURS: Entrant(Worker(KERNELS), after, own=True),
        }
        try:
            yield race(
                after.name,
                None,
                count,
                entrants,
                feeds,
                tolerance=TOLERANCE,
                references={STOCK: STOCK, OURS: STOCK},
            )
        finally:
            for entrant in entrants.values():
                entrant.worker.close()

"""Fit the constants of `sparse/estimate.py` to rows of the layers suite.

onnxprune bench --suite layers --threads 1 --json rows.json
python -m onnxprune.latency.fit rows.json ...
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

from onnxprune.latency.engines import KERNELS
from onnxprune.latency.layers import LAYERS, Layer, output_shape
from onnxprune.sparse.estimate import PORTABLE, Costs, estimate

ROUNDS = 400
STEP = 1.1
BATCHES = (1, 8, 64)

Sample = tuple[Layer, float, float]
"""A layer, its density, and the measured speedup of its kernel over dense."""


def speedup(layer: Layer, density: float, costs: Costs) -> float:
    """The estimated speedup of a single layer; alone, a dense convolution also reorders its input and output."""
    y = output_shape(layer)
    conv = layer.op_type == "Conv"
    dense, sparse = estimate(conv, layer.x, y, math.prod(layer.weight), density, costs)
    elements = math.prod(layer.x) + math.prod(y)
    return (dense + conv * costs.reorder * elements) / sparse


def error(samples: list[Sample], costs: Costs) -> float:
    """Root mean square of log(estimated / measured)."""
    logs = [math.log(speedup(layer, density, costs) / ratio) for layer, density, ratio in samples]
    return float(np.sqrt(np.mean(np.square(logs))))


def fit(samples: list[Sample], costs: Costs = PORTABLE) -> Costs:
    """The constants with the least `error`, by coordinate descent with steps of 10 % and then smaller ones."""
    step = STEP
    for _ in range(ROUNDS):
        trials = [
            costs._replace(**{name: getattr(costs, name) * factor})
            for name in costs._fields
            for factor in (step, 1 / step)
        ]
        best = min(trials, key=lambda trial: error(samples, trial))
        if error(samples, best) < error(samples, costs):
            costs = best
        else:
            step = math.sqrt(step)
    return costs


def read(path: Path) -> list[Sample]:
    """The rows of a file that `bench --suite layers --json` wrote."""
    layers = {layer.at(batch).name: layer.at(batch) for layer in LAYERS for batch in BATCHES}
    rows = json.loads(path.read_text())["rows"]
    return [(layers[row["name"]], row["density"], row["ratios"][KERNELS.name]) for row in rows]


if __name__ == "__main__":
    measured = [sample for name in sys.argv[1:] for sample in read(Path(name))]
    found = fit(measured)
    print(found)
    print(f"typical error: a factor of {math.exp(error(measured, found)):.2f} over {len(measured)} rows")

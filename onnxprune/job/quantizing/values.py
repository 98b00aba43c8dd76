"""Coarser steps for the weights of a quantized model that bear them: few different values take few bits in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np

from onnxprune.model.weights import Weight
from onnxprune.quantization.static import Steps
from onnxprune.system.progress import Progress, along

# The largest integers that weights may have, the coarsest first: 5 levels to 6 bits. Int8 has 127.
LARGEST = (2, 3, 5, 7, 15, 31)

Error = Callable[[Mapping[str, Steps]], float]


def coarsest(
    weights: Sequence[Weight],
    alone: Error,
    together: Error,
    most: float,
    progress: Progress = lambda fraction: None,
) -> dict[str, Steps]:
    """Steps for those of the weights that bear coarser ones than int8 has, by their names.

    `alone` and `together`: the error of the outputs with these steps, measured for one weight and for several. Each
    weight takes the coarsest steps whose error alone is below a limit, one for all, and the limit is the largest with
    which the error of all together is `most` at most.
    """
    none = alone({})
    scanned = {
        weight: alone({_name(weight): _steps(weight, LARGEST[0])}) - none
        for weight in along(weights, progress)
    }
    # Squared errors are as the squares of steps.
    costs = {
        weight: [max(cost, 0.0) * (LARGEST[0] / largest) ** 2 for largest in LARGEST]
        for weight, cost in scanned.items()
    }
    limits = sorted(set(chain.from_iterable(costs.values())))
    found: dict[str, Steps] = {}
    low, high = 0, len(limits)
    while low < high:
        middle = (low + high) // 2
        tried = {
            _name(weight): _steps(weight, largest)
            for weight, each in costs.items()
            for largest in [
                next((n for n, cost in zip(LARGEST, each, strict=True) if cost <= limits[middle]), None)
            ]
            if largest is not None
        }
        if together(tried) <= most:
            found, low = tried, middle + 1
        else:
            high = middle
    return found


def _name(weight: Weight) -> str:
    return weight.value.name or ""


def _steps(weight: Weight, largest: int) -> Steps:
    """Steps of which the largest value of each output channel has so many."""
    array, axis = weight.array(), weight.out_axis
    most = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis), initial=0)
    scale = np.where(most > 0, most / largest, 1.0).astype(np.float32)
    return Steps(scale, np.zeros(len(scale), np.int8), axis)

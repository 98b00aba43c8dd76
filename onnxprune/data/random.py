"""Random inputs of the shapes that a model takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.data.dataset import Dataset
from onnxprune.data.specs import InputSpec, batch_names, counts_samples, dims_text, fix_shapes
from onnxprune.errors import DataError, SettingError

RANDOM_SAMPLES = 16
MAX_RANDOM_BYTES = 2**30


def random_data(specs: list[InputSpec], free_size: int, seed: int) -> Dataset:
    """Random inputs: floats uniform in [0, 1), integers and booleans 0 or 1.

    The first axis of an input is `RANDOM_SAMPLES` long where the model leaves it open, other open axes `free_size`.

    Raises:
        DataError: they would be too large.
    """
    rng = np.random.default_rng(seed)
    batch = batch_names(specs)

    def size(axis: int, dim: int | str | None) -> int:
        if isinstance(dim, int):
            return dim
        return RANDOM_SAMPLES if counts_samples(axis, dim, batch) else free_size

    inputs = {}
    for spec in specs:
        shape = [size(axis, dim) for axis, dim in enumerate(spec.shape)]
        if math.prod(shape) * spec.dtype.itemsize > MAX_RANDOM_BYTES:
            raise DataError(f"random inputs {spec.name!r} of shape {shape} would be too large: give inputs")
        values = rng.integers(0, 2, shape) if spec.dtype.kind in "iub" else rng.random(shape)
        inputs[spec.name] = np.asarray(values).astype(spec.dtype)
    whole = len({array.shape[:1] for array in inputs.values()}) > 1 or not any(spec.shape for spec in specs)
    return Dataset(inputs, None, "random inputs", whole)


def random_feeds(
    specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]], seed: int = 0
) -> dict[str, np.ndarray]:
    """Random inputs, by name, of the shapes given, else of the model's own; a first axis that it leaves open is 1.

    Raises:
        SettingError: a shape is of no input or does not fit it, or another axis is open.
    """
    settled = []
    for spec in fix_shapes(specs, shapes):
        first = tuple(dim if isinstance(dim, int) else 1 for dim in spec.shape[:1])
        if not all(isinstance(dim, int) for dim in spec.shape[1:]):
            raise SettingError(
                f"input {spec.name} has dims {dims_text(spec)}, which leave its size open: "
                f"give --input-shape {spec.name}:DIMS"
            )
        settled.append(replace(spec, shape=first + spec.shape[1:]))
    return random_data(settled, 1, seed).inputs

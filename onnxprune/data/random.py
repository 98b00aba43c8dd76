"""Random inputs for a model."""

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
    """Random inputs: floats uniform in [0, 1), integers and booleans 0 or 1, texts "0" or "1".

    A dynamic first axis has `RANDOM_SAMPLES` positions, other dynamic axes `free_size`.

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
            raise DataError(f"random inputs {spec.name!r} of shape {shape} would be too large: give data")
        values = rng.integers(0, 2, shape) if spec.dtype.kind in "iubO" else rng.random(shape)
        array = np.asarray(values)
        inputs[spec.name] = (array.astype(str) if spec.dtype.kind == "O" else array).astype(spec.dtype)
    whole = len({array.shape[:1] for array in inputs.values()}) > 1 or not any(spec.shape for spec in specs)
    return Dataset.of(inputs, name="random inputs", whole=whole)


def random_feeds(
    specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]], seed: int = 0
) -> dict[str, np.ndarray]:
    """Random inputs by name, of the shapes given, else of the model's own, with 1 for a dynamic first axis.

    Raises:
        SettingError: a shape has no input or does not fit it, or another axis is dynamic.
    """
    fixed = []
    for spec in fix_shapes(specs, shapes):
        first = tuple(dim if isinstance(dim, int) else 1 for dim in spec.shape[:1])
        if not all(isinstance(dim, int) for dim in spec.shape[1:]):
            raise SettingError(
                f"input {spec.name} has dynamic dims ({dims_text(spec)}): give --input-shape {spec.name}:DIMS"
            )
        fixed.append(replace(spec, shape=first + spec.shape[1:]))
    return random_data(fixed, 1, seed).read().inputs

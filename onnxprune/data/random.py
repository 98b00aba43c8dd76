"""Random inputs for a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.data.axes import BatchAxes, batch_dims
from onnxprune.data.dataset import Dataset
from onnxprune.data.ragged import repeated
from onnxprune.data.specs import InputSpec, dims_text, fix_shapes
from onnxprune.errors import DataError, SettingError

RANDOM_SAMPLES = 16
MAX_RANDOM_BYTES = 2**30


def random_data(
    specs: Sequence[InputSpec], axes: BatchAxes, free_size: int, seed: int, samples: int = RANDOM_SAMPLES
) -> Dataset:
    """Random inputs of about so many samples: floats uniform in [0, 1), integers and booleans 0 or 1, texts "0" or "1".

    Open axes have `free_size` positions; those with the name of the batch axis as many as there are samples.

    Raises:
        DataError: they would be too large.
    """
    rng = np.random.default_rng(seed)
    shapes = random_shapes(specs, axes, free_size, samples)
    inputs = {}
    for spec in specs:
        values = _random(shapes[spec.name], spec.dtype, rng)
        goes_with_all = axes.of(spec.name) is None and not axes.whole
        inputs[spec.name] = repeated(values[0], len(values)) if goes_with_all else values
    return Dataset.of(inputs, name="random inputs", axes=axes)


def random_shapes(
    specs: Sequence[InputSpec], axes: BatchAxes, free_size: int, samples: int
) -> dict[str, tuple[int, ...]]:
    """The shapes of generated inputs, samples along the first axis: whole runs, as many as memory allows.

    Raises:
        DataError: one run would be too large.
    """
    batch, run = batch_dims(specs, axes), axes.size or 1

    def shape(spec: InputSpec, count: int) -> tuple[int, ...]:
        free = {True: count, False: free_size}
        return tuple(dim if isinstance(dim, int) else free[dim in batch] for dim in axes.sample_dims(spec))

    count = -(-samples // run) * run
    sizes = {spec.name: math.prod(shape(spec, count)) * spec.dtype.itemsize for spec in specs}
    fitting = min((MAX_RANDOM_BYTES // max(size, 1) for size in sizes.values()), default=count)
    if fitting < run:
        name = max(sizes, key=lambda name: sizes[name])
        spec = next(spec for spec in specs if spec.name == name)
        dims = [run, *shape(spec, count)]
        raise DataError(f"random inputs {name!r} of shape {dims} would be too large: give data")
    count = min(count, fitting // run * run)
    return {spec.name: (count, *shape(spec, count)) for spec in specs}


def random_feeds(
    specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]], seed: int = 0
) -> dict[str, np.ndarray]:
    """Random inputs by name, of the shapes given, else of the model's own, with 1 for a dynamic first axis.

    Raises:
        SettingError: a shape has no input or does not fit it, or another axis is dynamic.
        DataError: they would be too large.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for spec in fix_shapes(specs, shapes):
        dims = [dim if isinstance(dim, int) else 1 for dim in spec.shape[:1]]
        for dim in spec.shape[1:]:
            if not isinstance(dim, int):
                raise SettingError(
                    f"input {spec.name} has dynamic dims ({dims_text(spec)}): give --input-shape {spec.name}:DIMS"
                )
            dims.append(dim)
        if math.prod(dims) * spec.dtype.itemsize > MAX_RANDOM_BYTES:
            raise DataError(f"random inputs {spec.name!r} of shape {dims} would be too large: give data")
        feeds[spec.name] = _random(tuple(dims), spec.dtype, rng)
    return feeds


def _random(shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    values = np.asarray(rng.integers(0, 2, shape) if dtype.kind in "iubO" else rng.random(shape))
    return (values.astype(str) if dtype.kind == "O" else values).astype(dtype)

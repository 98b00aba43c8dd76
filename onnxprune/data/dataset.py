"""Samples for retraining and judging a model, and what its inputs take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import onnx_ir as ir

from onnxprune.errors import DataError, SettingError

RANDOM_SAMPLES = 16
MAX_RANDOM_BYTES = 2**30


@dataclass(frozen=True)
class InputSpec:
    """An input of the model: its name, numpy dtype, and dims (a text: as wide wherever it stands; None: any)."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]


def input_specs(model: ir.Model) -> list[InputSpec]:
    """The inputs that a caller must give, in graph order (initializers that are inputs too have a value already)."""
    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        known = value.dtype is not None and value.dtype != ir.DataType.UNDEFINED
        dtype = value.dtype.numpy() if known and value.dtype is not None else np.dtype(np.float32)
        dims = () if value.shape is None else tuple(_dim(dim) for dim in value.shape)
        specs.append(InputSpec(value.name or "", np.dtype(dtype), dims))
    return specs


def _dim(dim: int | ir.SymbolicDim) -> int | str | None:
    """A dim of a spec; PaddlePaddle writes an unknown one as -1."""
    if isinstance(dim, int):
        return dim if dim > 0 else None
    return dim.value


@dataclass(frozen=True)
class Dataset:
    """Samples along the first axis of every array: one array an input, and labels where there are any.

    An array without axes goes with every sample. `whole`: the arrays have no common first axis and are one sample.
    `patience`: seconds after which a run of a model on them is given up; None: never.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    name: str
    whole: bool = False
    patience: float | None = None

    def __len__(self) -> int:
        return 1 if self.whole else next(len(array) for array in self.inputs.values() if array.ndim)

    def take(self, index: np.ndarray | slice, name: str | None = None) -> Dataset:
        """The samples at `index`."""
        if self.whole:
            return self
        inputs = {key: array[index] if array.ndim else array for key, array in self.inputs.items()}
        labels = None if self.labels is None else self.labels[index]
        return replace(self, inputs=inputs, labels=labels, name=name or self.name)

    def split(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """Shuffle, and hold `fraction` of the samples out, but at least one and not all: (rest, held out).

        Raises:
            DataError: there are fewer than two samples.
        """
        if len(self) < 2:
            raise DataError(f"{self.name} holds {len(self)} sample: give at least 2, one of them is held out")
        order = np.random.default_rng(seed).permutation(len(self))
        held_out = min(max(1, round(fraction * len(self))), len(self) - 1)
        rest = self.take(np.sort(order[held_out:]))
        return rest, self.take(np.sort(order[:held_out]), f"held-out {100 * fraction:g}% of {self.name}")


def class_axis(output_shape: tuple[int, ...], labels_shape: tuple[int, ...]) -> int | None:
    """The axis of classes that makes labels of one number a sample (or position) fit an output; None if none does.

    (N, C) and (N,): 1; (N, T, C) and (N, T): 2; (N, C, H, W) and (N, H, W): 1.
    """
    if labels_shape == output_shape[:-1]:
        return len(output_shape) - 1
    if len(output_shape) > 2 and labels_shape == (output_shape[0], *output_shape[2:]):
        return 1
    return None


def fixed_batch(specs: list[InputSpec]) -> int | None:
    """The batch size that the model insists on, or None where any will do."""
    return next((spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)), None)


def fix_shapes(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> list[InputSpec]:
    """The inputs with these shapes, by name, in the place of what the model leaves open.

    Raises:
        SettingError: there is no such input, or it takes no such shape.
    """
    check_shapes(specs, shapes)
    return [replace(spec, shape=tuple(shapes.get(spec.name, spec.shape))) for spec in specs]


def check_shapes(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> None:
    """Hold the shapes that --input-shape gives, by name, against the inputs.

    Raises:
        SettingError: there is no such input, or it takes no such shape.
    """
    unknown = sorted(set(shapes) - {spec.name for spec in specs})
    if unknown:
        names = ", ".join(spec.name for spec in specs)
        raise SettingError(f"--input-shape {unknown[0]}: the model has no such input; it has {names}")
    for spec in specs:
        shape = tuple(shapes.get(spec.name, spec.shape))
        fits = len(shape) == len(spec.shape) and all(
            not isinstance(want, int) or have == want for have, want in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            wanted = ",".join(map(str, shape))
            raise SettingError(
                f"--input-shape {spec.name}:{wanted} does not fit the input, whose dims are {_dims(spec)}"
            )


def sized(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> list[InputSpec]:
    """The inputs, the axes that the model leaves open as long as in `shapes`, by name, but for those of the batch."""
    batch = _batch_names(specs)

    def size(axis: int, dim: int | str | None, asked: int) -> int | str | None:
        return dim if isinstance(dim, int) or _counts_samples(axis, dim, batch) else asked

    return [
        replace(spec, shape=tuple(map(size, count(), spec.shape, shapes[spec.name])))
        if spec.name in shapes
        else spec
        for spec in specs
    ]


def _batch_names(specs: Sequence[InputSpec]) -> set[int | str | None]:
    """What the first axes of the inputs are called."""
    return {spec.shape[0] for spec in specs if spec.shape}


def _counts_samples(axis: int, dim: int | str | None, batch: set[int | str | None]) -> bool:
    """Whether an open axis is that of the samples: the first, or one that is called as a first axis is."""
    return axis == 0 or (dim is not None and dim in batch)


def _dims(spec: InputSpec) -> str:
    return ",".join("?" if dim is None else str(dim) for dim in spec.shape)


def random_data(specs: list[InputSpec], free_size: int, seed: int) -> Dataset:
    """Random inputs: floats uniform in [0, 1), integers and booleans 0 or 1.

    The first axis of an input is `RANDOM_SAMPLES` long where the model leaves it open, other open axes `free_size`.

    Raises:
        DataError: they would be too large.
    """
    rng = np.random.default_rng(seed)
    batch = _batch_names(specs)

    def size(axis: int, dim: int | str | None) -> int:
        if isinstance(dim, int):
            return dim
        return RANDOM_SAMPLES if _counts_samples(axis, dim, batch) else free_size

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
                f"input {spec.name} has dims {_dims(spec)}, which leave its size open: "
                f"give --input-shape {spec.name}:DIMS"
            )
        settled.append(replace(spec, shape=first + spec.shape[1:]))
    return random_data(settled, 1, seed).inputs

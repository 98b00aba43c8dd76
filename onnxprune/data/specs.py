"""What a model's inputs take: names, dtypes, and dims that may be open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import onnx_ir as ir

from onnxprune.errors import SettingError


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
                f"--input-shape {spec.name}:{wanted} does not fit the input, whose dims are {dims_text(spec)}"
            )


def sized(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> list[InputSpec]:
    """The inputs, the axes that the model leaves open as long as in `shapes`, by name, but for those of the batch."""
    batch = batch_names(specs)

    def size(axis: int, dim: int | str | None, asked: int) -> int | str | None:
        return dim if isinstance(dim, int) or counts_samples(axis, dim, batch) else asked

    return [
        replace(spec, shape=tuple(map(size, count(), spec.shape, shapes[spec.name])))
        if spec.name in shapes
        else spec
        for spec in specs
    ]


def batch_names(specs: Sequence[InputSpec]) -> set[int | str | None]:
    """What the first axes of the inputs are called."""
    return {spec.shape[0] for spec in specs if spec.shape}


def counts_samples(axis: int, dim: int | str | None, batch: set[int | str | None]) -> bool:
    """Whether an open axis is that of the samples: the first, or one that is called as a first axis is."""
    return axis == 0 or (dim is not None and dim in batch)


def dims_text(spec: InputSpec) -> str:
    """The dims of an input: 1,3,?,?."""
    return ",".join("?" if dim is None else str(dim) for dim in spec.shape)

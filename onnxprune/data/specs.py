"""The inputs of a model: names, dtypes, and dims, some of them dynamic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.errors import SettingError

Dim = int | str | None


@dataclass(frozen=True)
class InputSpec:
    """An input of the model: its name, numpy dtype, and dims (a text: a symbolic dim; None: any size)."""

    name: str
    dtype: np.dtype
    shape: tuple[Dim, ...]


def input_specs(model: ir.Model) -> list[InputSpec]:
    """The inputs that a caller must give, in graph order, without those that are also initializers."""
    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        known = value.dtype is not None and value.dtype != ir.DataType.UNDEFINED
        dtype = value.dtype.numpy() if known and value.dtype is not None else np.dtype(np.float32)
        dims = () if value.shape is None else tuple(_dim(dim) for dim in value.shape)
        specs.append(InputSpec(value.name or "", np.dtype(dtype), dims))
    return specs


def _dim(dim: int | ir.SymbolicDim) -> Dim:
    """A dim of a spec; PaddlePaddle writes an unknown one as -1."""
    if isinstance(dim, int):
        return dim if dim > 0 else None
    return dim.value


def fix_shapes(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> list[InputSpec]:
    """The inputs with these shapes, by name, instead of those that the model declares.

    Raises:
        SettingError: there is no such input, or the shape does not fit it.
    """
    check_shapes(specs, shapes)
    return [replace(spec, shape=tuple(shapes.get(spec.name, spec.shape))) for spec in specs]


def check_shapes(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> None:
    """Check the shapes of --input-shape, by name, against the inputs.

    Raises:
        SettingError: there is no such input, or the shape does not fit it.
    """
    unknown = sorted(set(shapes) - {spec.name for spec in specs})
    if unknown:
        names = ", ".join(spec.name for spec in specs)
        raise SettingError(f"--input-shape {unknown[0]}: the model has no such input; give one of {names}")
    for spec in specs:
        shape = tuple(shapes.get(spec.name, spec.shape))
        fits = len(shape) == len(spec.shape) and all(
            not isinstance(want, int) or have == want for have, want in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            wanted = ",".join(map(str, shape))
            raise SettingError(
                f"--input-shape {spec.name}:{wanted} does not fit the input: its dims are {dims_text(spec)}"
            )


def dims_text(spec: InputSpec) -> str:
    """The dims of an input: 1,3,?,?."""
    return ",".join("?" if dim is None else str(dim) for dim in spec.shape)

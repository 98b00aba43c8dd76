"""The inputs of a model: names, dtypes, and dims, some of them dynamic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelFileError, SettingError

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


def common_inputs(first: ir.Model, second: ir.Model, names: Sequence[str]) -> list[InputSpec]:
    """The inputs of the first of two models that run on the same data, with the dims that either of them fixes.

    `names`: of the two models, for a message.

    Raises:
        ModelFileError: the models have different inputs.
    """
    specs, others = input_specs(first), input_specs(second)
    if [spec.name for spec in specs] != [other.name for other in others]:
        lists = [", ".join(spec.name for spec in each) or "none" for each in (specs, others)]
        raise ModelFileError(
            f"{names[0]} and {names[1]} have different inputs ({lists[0]} and {lists[1]}): give two models with the "
            "same inputs"
        )
    return [_common(spec, other, names) for spec, other in zip(specs, others, strict=True)]


def _common(spec: InputSpec, other: InputSpec, names: Sequence[str]) -> InputSpec:
    pairs = list(zip(spec.shape, other.shape, strict=False))
    fixed = [dims for dims in pairs if all(isinstance(dim, int) for dim in dims)]
    # No dims are those of a scalar, or not known.
    fits = len(spec.shape) == len(other.shape) or not spec.shape or not other.shape
    if spec.dtype != other.dtype or not fits or any(one != two for one, two in fixed):
        texts = [
            f"{type_name(each.dtype)} [{dims_text(each)}] in {name}"
            for each, name in zip((spec, other), names, strict=True)
        ]
        raise ModelFileError(
            f"input {spec.name!r} is {' and '.join(texts)}, so that they cannot run on the same data: give two models "
            "whose inputs have the same types and dims"
        )
    merged = tuple(two if isinstance(two, int) else one for one, two in pairs)
    return replace(spec, shape=merged or spec.shape or other.shape)


def type_name(dtype: np.dtype) -> str:
    """The name of an input's type, in which texts are no objects."""
    return "string" if dtype.kind == "O" else str(dtype)


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

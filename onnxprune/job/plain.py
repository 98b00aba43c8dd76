"""The form of a graph that other tools read: standard operators, fixed shapes, an opset that they know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxprune.config.output import OutputSettings
from onnxprune.data.specs import InputSpec, check_shapes, dims_text, input_specs
from onnxprune.errors import ModelFileError, SettingError, first_line, some
from onnxprune.model.functions import inline, obstacle
from onnxprune.model.qdq import to_qdq
from onnxprune.model.shapes.static import fix_dims
from onnxprune.sparse.functions import standard_opset
from onnxprune.sparse.opset import converted_to


def plain(
    model: ir.Model,
    name: str,
    settings: OutputSettings,
    shapes: Mapping[str, Sequence[int]],
    *,
    standard: bool = False,
) -> tuple[ir.Model, tuple[str, ...]]:
    """The model at the opset and with the fixed shapes of the settings, and notes; `model` itself may be changed.

    `name`: of the model, for messages. `shapes`: those of --input-shape, by the names of the inputs. `standard`:
    whether the integer operators of onnxruntime become standard ones between DequantizeLinear and QuantizeLinear.

    Raises:
        SettingError: a dim that is to be fixed is not known.
        ModelFileError: ONNX cannot convert the model to the opset.
    """
    notes: tuple[str, ...] = ()
    if settings.opset is not None and settings.opset != standard_opset(model):
        model = _converted(model, name, settings.opset)
    if standard and (left := to_qdq(model)):
        notes = (f"These operators have no form of standard operators: {', '.join(left)}.",)
    if settings.static:
        unknown = fix_dims(model, static_shapes(input_specs(model), shapes))
        if unknown:
            notes = (
                *notes,
                f"Sizes that depend on the data stay open, in spite of --static: {some(unknown)}.",
            )
    return model, notes


def check_plain(
    model: ir.Model, name: str, settings: OutputSettings, shapes: Mapping[str, Sequence[int]]
) -> None:
    """Check before long work what `plain` would refuse; the model is not changed.

    Raises:
        SettingError: a dim that is to be fixed is not known.
        ModelFileError: ONNX cannot convert the model to the opset.
    """
    if settings.static:
        static_shapes(input_specs(model), shapes)
    if settings.opset is not None and settings.opset != standard_opset(model):
        _converted(model, name, settings.opset)


def inline_all(model: ir.Model, name: str) -> tuple[str, ...]:
    """Inline every model-local function, in place; returns their names.

    Raises:
        ModelFileError: one cannot be inlined.
    """
    for function in model.functions.values():
        if (reason := obstacle(function, model)) is not None:
            raise ModelFileError(
                f"function {function.name} of {name} cannot be inlined: {reason}; export the model again without "
                "functions"
            )
    return inline(model, set(model.functions))


def static_shapes(
    specs: Sequence[InputSpec], given: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """The shape of every input: as given, with 1 for a free first dim; dims of one name have one size.

    Raises:
        SettingError: another dim is free, or a given shape does not fit.
    """
    check_shapes(specs, given)
    sizes: dict[str, int] = {}
    for spec in specs:
        for dim, size in zip(spec.shape, given.get(spec.name, ()), strict=False):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise SettingError(
                    f"--input-shape {spec.name}: dim {dim!r} is {size} here and {sizes[dim]} in another input; give "
                    "one size"
                )
    for spec in specs:
        if spec.name not in given and spec.shape and isinstance(spec.shape[0], str):
            sizes.setdefault(spec.shape[0], 1)
    shapes = {}
    for spec in specs:
        known = [sizes.get(dim) if isinstance(dim, str) else dim for dim in spec.shape]
        dims: Sequence[int | None] = [1 if dim is None and not at else dim for at, dim in enumerate(known)]
        dims = given.get(spec.name, dims)
        if any(dim is None for dim in dims):
            raise SettingError(
                f"--static: input {spec.name} has free dims ({dims_text(spec)}); give their sizes: --input-shape "
                f"{spec.name}:{','.join(str(dim or 'N') for dim in dims)}"
            )
        shapes[spec.name] = tuple(int(dim) for dim in dims if dim is not None)
    return shapes


def _converted(model: ir.Model, name: str, opset: int) -> ir.Model:
    before = standard_opset(model)
    where = f"{name} has opset {before} and cannot be converted to {opset}"
    instead = f"give an --opset nearer to {before}, or export the model anew with opset {opset}"
    if model.functions:
        raise ModelFileError(
            f"{where}: it has model-local functions; inline them first: onnxprune export IN.onnx OUT.onnx"
        )
    try:
        converted = converted_to(model, opset)
    # The converter reports by many classes, RuntimeError and IndexError among them.
    except Exception as error:
        reason = first_line(error).rpartition("failed: ")[2]
        raise ModelFileError(f"{where} by ONNX ({reason}); {instead}") from None
    if standard_opset(converted) != opset:
        raise ModelFileError(f"{where} by ONNX; {instead}")
    return converted

"""The last check before a model is written: no constant holds NaN or infinity that the input model did not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.errors import NotFiniteError
from onnxprune.model.constants import constant_tensor, constants
from onnxprune.model.reading import FLOAT_TYPES


def check_finite(model: ir.Model, load_input: Callable[[], ir.Model | None]) -> None:
    """Check the constants that are not those of a file or protobuf as it was read.

    `load_input`: reads the input model again, or gives None; called only if there is something to compare.

    Raises:
        NotFiniteError: one holds NaN or infinity, and that of the input model does not.
    """
    found = {value.name: kinds for value, kinds in _not_finite(model, read=False)}
    if not found or (given := load_input()) is None:
        return
    before = {value.name: kinds for value, kinds in _not_finite(given, read=True)}
    everywhere = frozenset().union(*before.values())
    known = {value.name for value in constants(given)}
    for name, kinds in found.items():
        # A constant of another name may be computed from one that is not finite.
        if new := kinds - (before.get(name, frozenset()) if name in known else everywhere):
            raise NotFiniteError(
                f"{name!r} of the pruned model holds {' and '.join(sorted(new))}, which that of the input model does "
                "not; no file was written: if it was fine-tuned, lower --learning-rate or give --clip-norm 1"
            )


def _not_finite(model: ir.Model, *, read: bool) -> Iterator[tuple[ir.Value, frozenset[str]]]:
    """The constants with numbers that are not finite, and which; `read`: also those that lie as they were read."""
    for value in constants(model):
        tensor = constant_tensor(value)
        if tensor is None or tensor.dtype not in FLOAT_TYPES:
            continue
        if not read and isinstance(tensor, ir.ExternalTensor | ir.serde.TensorProtoTensor):
            continue
        array = tensor.numpy()
        if not (finite := np.isfinite(array)).all():
            wrong = array[~finite].astype(np.float32)
            yield (
                value,
                frozenset("NaN" if np.isnan(number) else f"{number:g}" for number in np.unique(wrong)),
            )

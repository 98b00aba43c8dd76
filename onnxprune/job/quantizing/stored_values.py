"""Which weights `--values int4` stores as int4, in a model of floats: those of which the outputs bear it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.job.quantizing.outputs import NEAR, SCANNED_SAMPLES, Errors, Inputs
from onnxprune.job.samples.inputs import JobData
from onnxprune.model.constants import put_tensor
from onnxprune.model.encoding import on_axis
from onnxprune.model.weights import Weight, find_weights
from onnxprune.sparse.encode import LARGEST, quantize
from onnxprune.sparse.rounding import parts_of
from onnxprune.sparse.stored import why_no_gain
from onnxprune.system.progress import Progress, along

FEW, MORE = "int4", "int8"


def stored_values(
    model: ir.Model, data: JobData, config: PruneConfig, progress: Progress = lambda fraction: None
) -> tuple[dict[str, str], str]:
    """The types of weights that need another one than `--values` asks for, by name, and a note.

    With `--values int4`, each weight alone is rounded, and those that cost most for their size are int8: as few as
    needed for outputs near those without int4. Without calibration or training inputs all are int4. The model is not
    changed.
    """
    if config.values != FEW or config.format != "ops" or config.quantizes:
        return {}, ""
    weights = [weight for weight in find_weights(model).all if _is_rounded(weight)]
    if not weights:
        return {}, ""
    advice = "give --calibration-data, and those that the outputs do not bear in int4 are stored as int8."
    if not config.runs_model:
        return {}, f"All weights were rounded to {FEW} (--values), whatever it costs: {advice}"
    inputs = data.calibration or data.training
    if inputs is None:
        error = _error(
            Errors(model.clone(), Inputs(data.test.spread(config.calibration_samples))), model, weights
        )
        return (
            {},
            f"All weights were rounded to {FEW} (--values): {_text(error)} on {data.test.name}; {advice}",
        )
    errors = Errors(model.clone(), Inputs(inputs.spread(config.calibration_samples)))
    all_few = _error(errors, model, weights)
    if all_few <= NEAR:
        return {}, f"All weights were rounded to {FEW} (--values): {_text(all_few)}."
    scan = errors.some(SCANNED_SAMPLES)
    costs = {weight.name: _error(scan, model, [weight]) / weight.size for weight in along(weights, progress)}
    ordered = sorted(weights, key=lambda weight: -costs[weight.name])
    # The fewest that have to be int8, by bisection: the error falls with each.
    low, high = 1, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if _error(errors, model, ordered[middle:], ordered[:middle]) <= NEAR:
            high = middle
        else:
            low = middle + 1
    error = _error(errors, model, ordered[low:], ordered[:low])
    return dict.fromkeys((weight.name for weight in ordered[:low]), MORE), (
        f"{low} of {len(weights)} weights were rounded to {MORE} and the others to {FEW} (--values): {_text(error)}, "
        f"and {all_few:.2g} with all in {FEW}."
    )


def _is_rounded(weight: Weight) -> bool:
    if weight.quantized or weight.array().dtype.kind != "f":
        return False
    parts = parts_of(weight, FEW)
    return bool(parts.values) and why_no_gain(parts.nbytes, weight) is None


def _error(errors: Errors, model: ir.Model, few: Sequence[Weight], more: Sequence[Weight] = ()) -> float:
    """The error of the outputs with some weights in int4, and others in int8."""
    with _rounded({FEW: few, MORE: more}):
        return errors.of(model)


@contextmanager
def _rounded(by_values: Mapping[str, Iterable[Weight]]) -> Iterator[None]:
    """Weights rounded to these types in place, and put back afterwards."""
    before = {}
    try:
        for values, weights in by_values.items():
            for weight in weights:
                before[weight.value] = weight.tensor
                put_tensor(weight.value, _as_stored(weight, values))
        yield
    finally:
        for value, tensor in before.items():
            put_tensor(value, tensor)


def _as_stored(weight: Weight, values: str) -> ir.Tensor:
    array, axis = weight.array(), weight.out_axis
    found = quantize(array, axis, LARGEST[values])
    assert found is not None
    quantized, scales = found
    rounded = (quantized * on_axis(scales, axis, array.ndim)).astype(array.dtype)
    return ir.Tensor(rounded, dtype=weight.tensor.dtype, name=weight.value.name)


def _text(error: float) -> str:
    return f"relative squared error of the outputs {error:.2g}"

"""The batch size that a model fixes: freed for training and calibration where the outputs stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.config.settings import PruneConfig
from onnxprune.data.axes import Axis, BatchAxes
from onnxprune.data.dataset import Dataset
from onnxprune.errors import OnnxPruneError
from onnxprune.evaluation.runs import run_batch
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.samples.inputs import JobData
from onnxprune.model.files.staging import staging
from onnxprune.model.shapes.freeing import FreedBatch
from onnxprune.reports.record import Detail

# Runs of the model as it is that one run of the freed model must equal.
RUNS = 4
# The largest difference, as a part of the largest value: other kernels round otherwise.
TOLERANCE = 1e-3
# Ways to place the batch axes of several inputs that are tried.
MOST_TRIED = 8


def free_batch(
    model: ir.Model, baseline: ort.InferenceSession | None, data: JobData
) -> tuple[FreedBatch | None, JobData, tuple[str, ...]]:
    """Free the batch size of a model in place, if it fixes one and there is training or calibration.

    Returns what puts it back (None: nothing was changed), the data for the model as it is then, and notes.
    """
    given = data.training or data.calibration
    if baseline is None or given is None or given.axes.size is None or given.axes.whole:
        return None, data, ()
    size = given.axes.size
    some = given.take(slice(0, min(RUNS * size, len(given)) // size * size))
    samples = f"The model takes {size} sample{'s' * (size > 1)} at a time"
    for axes in _ways(given.axes, data) if len(some) > size else ():
        freed = FreedBatch(
            model, {name: axis for name, axis in axes.inputs.items() if axis is not None}, size
        )
        if _same(model, baseline, some, axes, trains=data.training is not None):
            note = Detail(
                f"{samples}. For training and calibration its batch axis was freed, with equal outputs for "
                f"{len(some)} samples; the output fixes it again."
            )
            return freed, data.fitted_along(axes), (note,)
        freed.restore()
    if data.training is None:
        return None, data, (f"{samples}, so it was calibrated in runs of {size}.",)
    return None, data, (f"{samples}, so the gradients of a batch are summed over runs of {size}.",)


def accumulation_notes(data: JobData, config: PruneConfig) -> Iterator[str]:
    """That --batch-size is no multiple of the model's own size."""
    size = None if data.training is None else data.training.run_axes.size
    if size is not None and config.batch_size is not None and config.batch_size % size:
        made = max(config.batch_size // size, 1) * size
        yield f"A batch has {made} samples and not {config.batch_size}, because the model takes {size} at a time."


def _ways(axes: BatchAxes, data: JobData) -> Iterator[BatchAxes]:
    """The axes, and others of size 1 that may be the batch in their place."""
    yield axes.freed()
    if axes.size != 1:
        return
    by_shape = dict.fromkeys(spec.shape for spec in data.specs if spec.shape)
    places: list[list[Axis]] = [
        [*(axis for axis, dim in enumerate(shape) if dim == 1), None] for shape in by_shape
    ]
    for way in islice(product(*places), 1, MOST_TRIED):
        chosen = dict(zip(by_shape, way, strict=True))
        if any(axis is not None for axis in way):
            inputs = {spec.name: chosen.get(spec.shape) for spec in data.specs}
            yield BatchAxes(inputs, axes.outputs, axes.labels)


def _same(
    model: ir.Model, baseline: ort.InferenceSession, some: Dataset, axes: BatchAxes, *, trains: bool
) -> bool:
    """Whether the freed model gives for all samples at once what the model gives run by run.

    `trains`: the torch module that is made of it has to, as well.
    """
    try:
        with staging(None) as stage:
            stage.write(model.clone())
            session = make_session(stage.path, "the model with a free batch size")
            runs = [run_batch(baseline, batch) for batch in some.batches(len(some))]
            batches = list(replace(some, freed=axes).batches(len(some)))
            forms = [[run_batch(session, batch) for batch in batches]]
        if trains:
            # torch is needed for training alone.
            from onnxprune.training.module.outputs import torch_outputs

            forms.append([torch_outputs(model, batch) for batch in batches])
    except (OnnxPruneError, RuntimeError, IndexError, ValueError):
        # The latter are what torch raises for shapes that do not fit.
        return False
    return len(batches) < len(runs) and all(
        _equal(one, several)
        for together in forms
        for one, several in zip(zip(*runs, strict=True), zip(*together, strict=True), strict=True)
    )


def _equal(runs: tuple[Any, ...], together: tuple[Any, ...]) -> bool:
    if not all(isinstance(output, np.ndarray) and output.ndim for output in (*runs, *together)):
        return False
    if len({output.shape[1:] for output in (*runs, *together)}) > 1:
        return False
    one, several = (np.concatenate(outputs) for outputs in (runs, together))
    # Outputs without elements show nothing.
    if one.shape != several.shape or not one.size:
        return False
    if one.dtype.kind != "f":
        return bool(np.mean(one != several) <= TOLERANCE)
    largest = float(np.abs(one).max(initial=0))
    return bool(np.allclose(one, several, rtol=0, atol=TOLERANCE * largest, equal_nan=True))

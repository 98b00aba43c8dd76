"""Running a model on batches; wrong data and endless loops become errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.data.dataset import Dataset
from onnxprune.data.random import random_data
from onnxprune.data.specs import InputSpec, fixed_batch
from onnxprune.errors import DataError, first_line
from onnxprune.evaluation.metrics import RunningScore

BATCH_SAMPLES = 256
# Sizes to try for dynamic axes other than the first.
FREE_SIZES = (16, 64, 224, 512, 1)
# Time limit of a run on generated inputs, with which a Loop may never end.
LOOP_SECONDS = 3.0


def random_inputs(
    session: ort.InferenceSession,
    specs: list[InputSpec],
    seed: int,
    make: Callable[[list[InputSpec], int, int], Dataset] = random_data,
    patience: float | None = None,
) -> Dataset:
    """Generated inputs that the model runs on; sizes for dynamic axes are tried. For `patience` see `Dataset`.

    Raises:
        DataError: the model runs on none of them.
    """
    failures = []
    for size in FREE_SIZES:
        try:
            data = replace(make(specs, size, seed), patience=patience)
            check_runs(session, data, specs)
            return data
        except EndlessError:
            raise
        except DataError as error:
            failures.append(str(error))
    raise DataError(f"{failures[0]}; give data that fits the model")


def patience(model: ir.Model) -> float | None:
    """The time limit of a run on generated inputs, in seconds; None for a model without a Loop."""
    functions = (function.all_nodes() for function in model.functions.values())
    nodes = chain(model.graph.all_nodes(), *functions)
    return LOOP_SECONDS if any(node.op_type == "Loop" for node in nodes) else None


def check_runs(session: ort.InferenceSession, data: Dataset, specs: list[InputSpec], metrics=None) -> Dataset:
    """Run a model on the first samples and check the labels against its first output, before any long work.

    Raises:
        DataError: the model does not run on the data, or the labels do not fit.
    """
    fixed = None if data.whole else fixed_batch(specs)
    batch = data.take(slice(0, fixed or 2)).read()
    outputs = run_batch(session, batch, fixed)
    if batch.labels:
        RunningScore().add(outputs[0], batch.labels[""], data.name)
    return data


def batches(data: Dataset, size: int) -> Iterator[Dataset]:
    yield from data.batches(size)


def run_batch(session: ort.InferenceSession, batch: Batch, fixed: int | None) -> list[np.ndarray]:
    """The outputs for a batch; for a fixed batch size, the last batch is padded and its outputs are sliced."""
    samples, inputs = len(batch), batch.inputs
    if fixed and samples < fixed:
        inputs = {
            name: np.resize(array, (fixed, *array.shape[1:])) if array.ndim else array
            for name, array in inputs.items()
        }
    try:
        with _stopped_after(batch.patience) as options:
            outputs = session.run(None, inputs, options)
    except Exception as error:
        if options is not None and options.terminate:
            raise EndlessError(
                f"a run of the model on {batch.name} had not ended after {batch.patience:g} s, perhaps because of its "
                "Loop: give data on which it ends"
            ) from None
        raise DataError(f"onnxruntime cannot run the model on {batch.name}: {first_line(error)}") from error
    return [
        output[:samples]
        if fixed and isinstance(output, np.ndarray) and output.shape[:1] == (fixed,)
        else output
        for output in outputs
    ]


class EndlessError(DataError):
    """A run on generated inputs exceeded its time limit."""


@contextmanager
def _stopped_after(seconds: float | None) -> Iterator[ort.RunOptions | None]:
    """Run options with which onnxruntime stops a run after some seconds, between two nodes; None without a limit."""
    if seconds is None:
        yield None
        return
    options = ort.RunOptions()
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()

"""The inputs of a job: read from a source and tried on the model, or made to fit it."""

from __future__ import annotations

from functools import partial
from typing import Any

import onnx_ir as ir
import onnxruntime as ort

from onnxprune.calibration.synthetic import NAME as SYNTHETIC
from onnxprune.calibration.synthetic import synthetic_data
from onnxprune.data.dataset import Dataset, InputSpec
from onnxprune.data.sources import load_data
from onnxprune.evaluation.evaluate import check_runs, patience, random_inputs


def read_inputs(
    source: Any,
    model: ir.Model,
    original: ort.InferenceSession,
    specs: list[InputSpec],
    seed: int,
    made_up: list[InputSpec],
) -> Dataset:
    """A data source, see `load_data`, or the word "synthetic": inputs made up from the model, as `made_up` has them.

    Raises:
        DataError: it cannot be read, or the model does not run on it.
    """
    if isinstance(source, str) and source == SYNTHETIC:
        return random_inputs(original, made_up, seed, partial(synthetic_data, model), patience(model))
    return read_samples(source, original, specs)


def read_samples(source: Any, original: ort.InferenceSession, specs: list[InputSpec]) -> Dataset:
    """A data source, see `load_data`, that the model runs on.

    Raises:
        DataError: it cannot be read, or the model does not run on it.
    """
    data = load_data(source, specs)
    check_runs(original, data, specs)
    return data

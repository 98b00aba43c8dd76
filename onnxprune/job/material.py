"""What a job works with: its data, and what is measured on them before anything is cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir
import onnxruntime as ort

from onnxprune.calibration.sensitivity import measure
from onnxprune.calibration.walk import affordable
from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset, InputSpec, check_shapes, input_specs, sized
from onnxprune.evaluation.evaluate import patience, random_inputs
from onnxprune.job.calibrated import Calibration
from onnxprune.job.inputs import read_inputs, read_samples
from onnxprune.job.size_search import rate_of_bytes
from onnxprune.model.costs import multiply_adds, weight_multiply_adds
from onnxprune.model.weights import Weight
from onnxprune.pruning.budget import of_multiply_adds, settled
from onnxprune.pruning.sensitivity import ladder_for, scan
from onnxprune.report.record import FileRecord

# Enough for the order of the layers; every rate of every weight is a run on all of them.
SENSITIVITY_SAMPLES = 128
UNKNOWN_RATE = 0.98

Curves = dict[str, list[tuple[float, float]]]
"""(rate, deviation) of every weight, by its name."""


@dataclass(frozen=True)
class Material:
    """The data of a job: to train on, to pick the best state by, and to judge both models on (`old` as well)."""

    specs: list[InputSpec]
    training: Dataset | None
    held_out: Dataset | None
    judging: Dataset
    old: Dataset | None
    calibration: Dataset | None


def read_material(model: ir.Model, original: ort.InferenceSession, config: PruneConfig) -> Material:
    """The data that the settings name, split and tried on the model; where they name none, inputs made up.

    What is made up has the shape of --input-shape, else that of the samples of --eval-data.

    Raises:
        DataError: something cannot be read, or the model does not run on it.
        SettingError: --input-shape does not fit the model.
    """
    specs = input_specs(model)
    judging = None if config.eval_data is None else read_samples(config.eval_data, original, specs)
    asked = dict(config.input_shape)
    # Or training goes first, and the choice of kernels refuses them in the end.
    check_shapes(specs, asked)
    made_up = sized(specs, asked if judging is None else sample_shapes(judging) | asked)
    training = held_out = None
    if config.data is not None:
        data = read_inputs(config.data, model, original, specs, config.seed, made_up)
        if config.held_out_data is None:
            training, held_out = data.split(config.held_out, config.seed)
        else:
            training = data
            held_out = read_inputs(config.held_out_data, model, original, specs, config.seed, made_up)
    if judging is None:
        judging = held_out or random_inputs(original, made_up, config.seed, patience=patience(model))
    old = None if config.old_data is None else read_samples(config.old_data, original, specs)
    measured = config.calibrated or config.scope == "sensitivity"
    calibration = training if measured else None
    if measured and config.calibration_data is not None:
        calibration = read_inputs(config.calibration_data, model, original, specs, config.seed, made_up)
    return Material(specs, training, held_out, judging, old, calibration)


def calibration_of(model: ir.Model, data: Material, config: PruneConfig) -> Calibration | None:
    """What the layers read, where the settings ask for cuts that know it."""
    if not config.calibrated or data.calibration is None:
        return None
    return Calibration.of(model, data.calibration, config)


def amount_of(
    model: ir.Model,
    weights: tuple[Weight, ...],
    config: PruneConfig,
    data: Material,
    before: FileRecord,
    curves: Curves | None,
) -> tuple[PruneConfig, dict[str, int] | None]:
    """The settings with the rate that --flops or --bytes comes to, and what the weights cost of it."""
    if config.flops is not None:
        costs = weight_multiply_adds(weights, multiply_adds(model, sample_shapes(data.judging)))
        budget = of_multiply_adds(weights, config.flops, costs, before.multiply_adds)
        return settled(weights, config, budget, curves, costs), costs
    if config.bytes is not None:
        rate = rate_of_bytes(model, weights, config, curves, before.bytes)
        return replace(config, rate=rate, bytes=None), None
    return config, None


def curves_of(
    model: ir.Model, weights: tuple[Weight, ...], data: Material, config: PruneConfig
) -> Curves | None:
    """What pruning each weight alone costs the outputs, where the rate is shared out by that."""
    if config.scope != "sensitivity" or data.calibration is None:
        return None
    some = data.calibration.take(slice(0, affordable(model, data.calibration, SENSITIVITY_SAMPLES)))
    # With --flops or --bytes the rate is not known yet.
    ladder = ladder_for(UNKNOWN_RATE if config.rate is None else config.rate)
    for found in scan(weights, partial(measure, model, some), ladder, {}, None):
        curves = {name: found.curve(name) for name in found.layers}
    return curves


def sample_shapes(data: Dataset) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs for one sample."""
    shapes = {name: array.shape for name, array in data.inputs.items()}
    return shapes if data.whole else {name: (1, *shape[1:]) for name, shape in shapes.items() if shape}

"""Fine-tuning with simulated quantization: the last part of a training, whose scales are those of the written file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxprune.config.declare import settled
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import OnnxPruneError
from onnxprune.job.fine_tune import prune_and_fine_tune
from onnxprune.job.quantizing.outputs import session_of
from onnxprune.job.samples.freeing import free_batch
from onnxprune.job.samples.inputs import JobData
from onnxprune.model.constants import constant_tensor, constants, set_constant
from onnxprune.model.weights import find_weights
from onnxprune.pruning.masks import NonZero
from onnxprune.pruning.pruner import Pruner
from onnxprune.quantization.static import Steps, scales_of_activations, steps_of
from onnxprune.reports.record import Detail
from onnxprune.system.progress import Progress

if TYPE_CHECKING:
    from onnxprune.training.validation import Epoch

# The part of the epochs, and of the time of a training with --time, that is trained with simulated quantization.
SHARE = 0.15
# Rounding changes little, so that little has to be learned.
LEARNING_RATE = 1e-4
# With less time left, nothing is trained.
LEAST_SECONDS = 2.0
WARMUP = 10


@dataclass(frozen=True)
class Outcome:
    """What a training gave: `steps` of the values that the file has to have; none where nothing was trained."""

    steps: dict[str, Steps] = field(default_factory=dict)
    note: str = ""


def floats_deadline(deadline: float | None, config: PruneConfig) -> float | None:
    """The end of the training before quantization, by `time.monotonic()`; `deadline`: that of all training."""
    if deadline is None or not config.quantizes or config.quantize_epochs == 0:
        return deadline
    return deadline - SHARE * max(0.0, deadline - time.monotonic())


def train(
    model: ir.Model,
    make: Callable[[], ir.Model],
    data: JobData,
    config: PruneConfig,
    progress: Progress,
    deadline: float | None,
) -> Outcome:
    """Fine-tune the model in floats through the simulated one that `make` makes, in place.

    The outputs of the model in floats, as it is before, are followed. Zeros stay zeros.
    """
    late = deadline is not None and deadline - time.monotonic() < LEAST_SECONDS
    if data.training is None or data.validation is None or config.quantize_epochs == 0 or late:
        return Outcome()
    if config.train_until is not None:
        return Outcome(note="Not fine-tuned in int8: --train-until names a node of the model in floats.")
    from onnxprune.training.simulation import Simulation
    from onnxprune.training.validation import Epoch

    freed = None
    try:
        made = make()
        weights = find_weights(made).prunable
        pruner = Pruner(lambda step, gradients: NonZero(list(weights)), weights)
        simulation = Simulation(model.clone(), tuple(scales_of_activations(made)))
        freed, fitting, _ = free_batch(made, session_of(made), data)
        tuned = prune_and_fine_tune(
            made, pruner, fitting, _settings(config), progress, None, deadline, simulation
        )
    # The model in floats is trained already, and can be written without this.
    except OnnxPruneError as error:
        return Outcome(note=f"Not fine-tuned in int8: {error}.")
    finally:
        if freed is not None:
            freed.restore()
    _take_over(model, made)
    return Outcome(steps_of(made), _note([Epoch(**record) for record in tuned.epochs], tuned.diverged))


def _settings(config: PruneConfig) -> PruneConfig:
    """The settings of the training: short and gentle, in float32, because bfloat16 would round otherwise."""
    epochs = config.quantize_epochs
    return replace(
        config,
        epochs=max(1, round(SHARE * settled(config.epochs))) if epochs is None else epochs,
        optimizer="adam",
        learning_rate=LEARNING_RATE,
        learning_rate_schedule="cosine",
        warmup=WARMUP,
        average="none",
        batch_norm="frozen",
        restore_norms="never",
        dropout=(),
        precision="float32",
        distill_features=(),
        criterion="magnitude",
        selection="threshold",
        schedule="one-shot",
        alternate=False,
        regrow_zeros=False,
        checkpoint=None,
        resume=False,
    )


def _take_over(model: ir.Model, made: ir.Model) -> None:
    """Give the model the constants of the simulated one that it has too."""
    trained = made.graph.initializers
    for value in constants(model):
        old, new = constant_tensor(value), constant_tensor(trained.get(value.name or ""))
        if value.graph is model.graph and old is not None and new is not None and old.dtype == new.dtype:
            set_constant(value, new.numpy(), old.dtype)


def _note(epochs: Sequence[Epoch], diverged: str) -> str:
    """What the training gave, in the words of its evaluations on validation data; the first one is before it."""
    first, best = epochs[0], epochs[0]
    for each in epochs[1:]:
        best = each if each.better_than(best) else best
    if best is first:
        return f"Fine-tuning with simulated quantization gave nothing better on validation data. {diverged}".strip()
    found = f"loss {first.loss:.4g} -> {best.loss:.4g}"
    if first.score is not None and best.score is not None:
        found += f", {first.metric} {first.score:.4g} -> {best.score:.4g}"
    text = f"Fine-tuned with simulated quantization: {found} on validation data. {diverged}".strip()
    return text if diverged else Detail(text)

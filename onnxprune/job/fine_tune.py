"""The core of a job: prune on the schedule, and fine-tune if there is data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.config.declare import settled
from onnxprune.config.settings import PruneConfig
from onnxprune.data.images.augment import Augmentation
from onnxprune.evaluation.labels import (
    label_forms,
    only_given_labels,
    unnamed_output,
    with_given_labels,
)
from onnxprune.job.defaults import batch_size
from onnxprune.job.inputs import JobData
from onnxprune.job.losses import is_own, truths
from onnxprune.job.scorer import Scorer
from onnxprune.pruning.pruner import Pruner
from onnxprune.pruning.schedule import ONE_SHOT, make_schedule

# Validation samples of a stream are kept in memory up to this size.
HELD_BYTES = 2**28


@dataclass(frozen=True)
class FineTuned:
    """`epochs`: a record of each evaluation on validation data; `diverged`: a sentence if the training ended early."""

    epochs: tuple[dict[str, Any], ...] = ()
    diverged: str = ""


def prune_and_fine_tune(
    model: ir.Model,
    pruner: Pruner,
    data: JobData,
    config: PruneConfig,
    progress: Callable[[float], None],
    start: Path | None = None,
    deadline: float | None = None,
) -> FineTuned:
    """Prune a model in place, and fine-tune it if there is data.

    `start`: the checkpoint of a training of this model at a lower rate, whose weights and masks are the starting point.
    The teacher of the distillation is the model itself in any case. `deadline`: by `time.monotonic()`, when the
    training has to be finished.

    Raises:
        DataError: no labels and no distillation, or fewer samples than the fixed batch size of the model.
        UnsupportedOperatorError: an operator of the model cannot be trained.
        NotFiniteError: the training diverges before there is a state at the final rate.
    """
    if data.training is None or data.validation is None:
        pruner.prune(ONE_SHOT, {})
        return FineTuned()
    # Only fine-tuning needs torch, whose import takes longer than a one-shot job.
    from onnxprune.training.checkpoint import best_module
    from onnxprune.training.distributed import joined
    from onnxprune.training.feed import Feed, whole_batches
    from onnxprune.training.fine_tuning import FineTuner
    from onnxprune.training.session import PruningSession

    training, held = data.training, data.validation
    if is_own(config.loss):
        training, held = only_given_labels(training), with_given_labels(held)
    names = [output.name or "" for output in model.graph.outputs]
    batches = Feed(
        training,
        data.specs,
        batch_size(config, len(data.training)),
        config.seed,
        augmentation=Augmentation.of(config.augment),
        workers=config.data_workers,
    )
    # A pass over a stream for each evaluation would read all of it.
    validation = whole_batches(held).held(HELD_BYTES)
    schedule = make_schedule(config, settled(config.epochs) * batches.an_epoch, pruner.families)
    session = PruningSession(model, pruner, schedule, config)
    with joined(config.device) as processes:
        scorer = partial(Scorer, data.metrics, label_forms(data.validation), names)
        read = truths(data.training, config.loss), truths(data.validation, config.loss)
        tuner = FineTuner(
            session,
            batches,
            validation,
            config,
            processes,
            scorer,
            *read,
            config.training(),
            deadline,
            unnamed_output(data.training),
        )
        if start is not None:
            session.start_from(best_module(start))
        epochs = tuner.fit(progress)
    return FineTuned(tuple(asdict(epoch) for epoch in epochs), tuner.diverged)

"""The middle of a job: prune on the schedule, and fine-tune where there is data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.data.specs import fixed_batch
from onnxprune.job.inputs import JobData
from onnxprune.pruning.pruner import Pruner
from onnxprune.pruning.schedule import ONE_SHOT, make_schedule


def prune_and_fine_tune(
    model: ir.Model,
    pruner: Pruner,
    data: JobData,
    config: PruneConfig,
    progress: Callable[[float], None],
    start: Path | None = None,
) -> tuple[dict[str, Any], ...]:
    """Prune a model in place; a record of every state evaluated on validation data, none where there is no data.

    `start`: the checkpoint of a training on this model that removed less, whose weights and masks this one starts from;
    what is distilled from is the model itself all the same.

    Raises:
        DataError: no labels and no distillation, or fewer samples than the model's fixed batch.
        UnsupportedOperatorError: an operator of the model cannot be trained.
    """
    if data.training is None or data.validation is None:
        pruner.prune(ONE_SHOT, {})
        return ()
    # Only fine-tuning needs torch, whose import takes longer than a one-shot job.
    from onnxprune.training.checkpoint import best_module
    from onnxprune.training.distributed import joined
    from onnxprune.training.fine_tuning import FineTuner
    from onnxprune.training.samples import Batches, Samples, whole_batches
    from onnxprune.training.session import PruningSession

    size = fixed_batch(data.specs)
    training = Samples.of(whole_batches(data.training, size), data.specs)
    batches = Batches(training, config.batch_size, config.seed, fixed_size=size)
    validation = Samples.of(whole_batches(data.validation, size), data.specs)
    schedule = make_schedule(config, config.epochs * batches.an_epoch, pruner.families)
    session = PruningSession(model, pruner, schedule, config)
    with joined(config.device) as processes:
        tuner = FineTuner(session, batches, validation, config, processes, config.training())
        if start is not None:
            session.go_on_from(best_module(start))
        epochs = tuner.fit(progress)
    return tuple(asdict(epoch) for epoch in epochs)

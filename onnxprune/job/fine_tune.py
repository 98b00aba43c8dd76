"""The core of a job: prune on the schedule, and fine-tune if there is data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.data.augment import Augmentation
from onnxprune.data.batch import Batch
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
    """Prune a model in place; returns a record of each evaluation on validation data, none without data.

    `start`: the checkpoint of a training of this model at a lower rate, whose weights and masks are the starting point.
    The teacher of the distillation is the model itself in any case.

    Raises:
        DataError: no labels and no distillation, or fewer samples than the fixed batch size of the model.
        UnsupportedOperatorError: an operator of the model cannot be trained.
    """
    if data.training is None or data.validation is None:
        pruner.prune(ONE_SHOT, {})
        return ()
    # Only fine-tuning needs torch, whose import takes longer than a one-shot job.
    from onnxprune.training.checkpoint import best_module
    from onnxprune.training.distributed import joined
    from onnxprune.training.feed import Feed, whole_batches
    from onnxprune.training.fine_tuning import FineTuner
    from onnxprune.training.session import PruningSession

    size = fixed_batch(data.specs)
    batches = Feed(
        data.training,
        data.specs,
        config.batch_size,
        config.seed,
        fixed_size=size,
        augmentation=None if config.augment is None else Augmentation.parse(config.augment),
        workers=config.data_workers,
    )
    validation = whole_batches(data.validation, size)
    schedule = make_schedule(config, config.epochs * batches.an_epoch, pruner.families)
    session = PruningSession(model, pruner, schedule, config)
    with joined(config.device) as processes:
        scorer = partial(Scorer, data.metrics)
        tuner = FineTuner(session, batches, validation, config, processes, scorer, config.training())
        if start is not None:
            session.start_from(best_module(start))
        epochs = tuner.fit(progress)
    return tuple(asdict(epoch) for epoch in epochs)


class Scorer:
    def __init__(self, metrics: Any) -> None:
        from onnxprune.evaluation.metrics import RunningScore

        self.score = RunningScore()

    def add(self, outputs: Sequence[Any], batch: Batch) -> None:
        if batch.labels:
            self.score.add(outputs[0], batch.labels[""], batch.name)

    def records(self) -> Any:
        return self.score

    def merged(self, records: Sequence[Any]) -> Any:
        result = records[0].result()
        return (None, None, True) if result is None else (result.name, result.value, result.metric.fraction)

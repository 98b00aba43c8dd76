"""The middle of a job: prune, and retrain in turns where there is data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset, InputSpec, fixed_batch
from onnxprune.job.pruner import Cutter
from onnxprune.training.checkpoint import best_module
from onnxprune.training.distributed import joined
from onnxprune.training.retrain import Retrainer
from onnxprune.training.samples import Batches, Samples, whole_batches
from onnxprune.training.session import PruningSession


def prune_and_retrain(
    model: ir.Model,
    cutter: Cutter,
    training: Dataset,
    held_out: Dataset,
    specs: list[InputSpec],
    config: PruneConfig,
    progress: Callable[[float], None],
    start: Path | None = None,
) -> tuple[dict[str, Any], ...]:
    """Prune a model in place on the schedule of the settings; a record of every state judged on held-out data.

    `start`: the checkpoint of a training on this model that cut less, whose weights and masks this one begins with;
    what is distilled from is the model itself all the same.

    Raises:
        DataError: no labels and no distillation, or fewer samples than the model's fixed batch.
        UnsupportedOperatorError: an operator of the model cannot be retrained.
    """
    size = fixed_batch(specs)
    batches = Batches(
        Samples.of(whole_batches(training, size), specs), config.batch_size, config.seed, fixed_size=size
    )
    session = PruningSession.of(model, cutter, config, config.epochs * batches.an_epoch)
    held = Samples.of(whole_batches(held_out, size), specs)
    with joined(config.device) as processes:
        retrainer = Retrainer(session, batches, held, config, processes)
        if start is not None:
            session.go_on_from(best_module(start))
        epochs = retrainer.fit(progress)
    return tuple(asdict(epoch) for epoch in epochs)

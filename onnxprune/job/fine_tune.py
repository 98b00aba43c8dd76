"""The core of a job: prune on the schedule, and fine-tune if there is data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxprune.config.declare import settled
from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset
from onnxprune.data.images.augment import Augmentation
from onnxprune.data.specs import fixed_batch
from onnxprune.evaluation.labels import label_forms
from onnxprune.evaluation.metrics import kinds_text
from onnxprune.job.aiming import aimed
from onnxprune.job.defaults import batch_size
from onnxprune.job.inputs import JobData
from onnxprune.job.scorer import Scorer
from onnxprune.pruning.pruner import Pruner
from onnxprune.pruning.schedule import ONE_SHOT, make_schedule

if TYPE_CHECKING:
    from onnxprune.training.session import PruningSession

# Validation samples of a stream are kept in memory up to this size.
HELD_BYTES = 2**28


@dataclass(frozen=True)
class FineTuned:
    """A record of each evaluation on validation data, none without data, and notes for the summary."""

    epochs: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


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

    size, custom = fixed_batch(data.specs), ":" in config.loss
    batches = Feed(
        data.training,
        data.specs,
        batch_size(config, len(data.training), size),
        config.seed,
        fixed_size=size,
        augmentation=Augmentation.of(config.augment),
        workers=config.data_workers,
    )
    # A pass over a stream for each evaluation would read all of it.
    validation = whole_batches(data.validation, size).held(HELD_BYTES)
    schedule = make_schedule(config, settled(config.epochs) * batches.an_epoch, pruner.families)
    session = PruningSession(model, pruner, schedule, config)
    aim = aimed(session, data.training, size, custom)
    batches.data, validation = aim.labels(batches.data), aim.labels(validation)
    trained = [name for name, form in label_forms(batches.data).items() if custom or form.trains]
    scored = aim.scored(validation)
    if session.ends.cut and data.metrics.postprocess is not None:
        # It is a function of the model's own outputs.
        scored = {}
    with joined(config.device) as processes:
        scorer = partial(Scorer, data.metrics, scored, session.ends.names)
        tuner = FineTuner(
            session, batches, validation, config, processes, scorer, trained, config.training(), deadline
        )
        if start is not None:
            session.start_from(best_module(start))
        epochs = tuner.fit(progress)
    return FineTuned(
        tuple(asdict(epoch) for epoch in epochs), tuple(_notes(session, data.training, trained, config))
    )


def _notes(
    session: PruningSession, training: Dataset, trained: Collection[str], config: PruneConfig
) -> Iterator[str]:
    """Where the training graph ends before the model does, and whether labels could be used."""
    ends, forms = session.ends, label_forms(training)
    if config.train_until is not None:
        behind = " What is behind it was pruned and not trained." if ends.weights_behind else ""
        yield f"Fine-tuned until {config.train_until}.{behind}"
    elif ends.left_out:
        yield (
            f"{', '.join(ends.left_out)} cannot be fine-tuned through, and is as it was: fine-tuned until "
            f"{', '.join(name for name in ends.names if name not in ends.stand_ins)}."
        )
    if forms and not trained:
        kinds = kinds_text(tuple(dict.fromkeys(form.kind for form in forms.values())))
        yield (
            f"The labels of --data ({kinds}) are for the metric alone: the model was fine-tuned towards the outputs of "
            "the input model. --loss MODULE:FUNCTION can use them."
        )

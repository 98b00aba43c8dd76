"""The core of a job: prune on the schedule, and fine-tune if there is data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxprune.config.declare import settled
from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset
from onnxprune.data.images.augment import Augmentation
from onnxprune.evaluation.labels import (
    label_forms,
    only_given_labels,
    unnamed_output,
    with_given_labels,
)
from onnxprune.evaluation.metrics import kinds_text
from onnxprune.job.choices.defaults import batch_size
from onnxprune.job.samples.aiming import aimed
from onnxprune.job.samples.inputs import JobData
from onnxprune.job.samples.losses import check_losses, is_own, loss_notes, truths
from onnxprune.job.samples.scorer import Scorer
from onnxprune.pruning.pruner import Pruner
from onnxprune.pruning.schedule import ONE_SHOT, make_schedule
from onnxprune.reports.record import Detail
from onnxprune.system.progress import Progress

if TYPE_CHECKING:
    from onnxprune.training.session import PruningSession
    from onnxprune.training.simulation import Simulation

# Validation samples of a stream are kept in memory up to this size.
HELD_BYTES = 2**28


@dataclass(frozen=True)
class FineTuned:
    """What a training gave: nothing without data.

    `epochs`: a record of each evaluation on validation data; `diverged`: a sentence if the training ended early;
    `notes`: for the summary.
    """

    epochs: tuple[dict[str, Any], ...] = ()
    diverged: str = ""
    notes: tuple[str, ...] = ()


def prune_and_fine_tune(
    model: ir.Model,
    pruner: Pruner,
    data: JobData,
    config: PruneConfig,
    progress: Progress,
    start: Path | None = None,
    deadline: float | None = None,
    simulation: Simulation | None = None,
) -> FineTuned:
    """Prune a model in place, and fine-tune it if there is data.

    `start`: the checkpoint of a training of this model at a lower rate, whose weights and masks are the starting point.
    The teacher of the distillation is the model itself in any case. `deadline`: by `time.monotonic()`, when the
    training has to be finished. `simulation`: for a model in which integers are simulated.

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

    batches = Feed(
        data.training,
        data.specs,
        batch_size(config, len(data.training)),
        config.seed,
        augmentation=Augmentation.of(config.augment),
        workers=config.data_workers,
    )
    schedule = make_schedule(config, settled(config.epochs) * batches.an_epoch, pruner.families)
    session = PruningSession(model, pruner, schedule, config, simulation)
    own = is_own(config.loss)
    aims = [aimed(session, each, custom=own) for each in (batches.data, whole_batches(data.validation))]
    training, held = (aim.data for aim in aims)
    check_losses(training, held, config)
    notes = tuple(_notes(session, data.training, training, config))
    scored = aims[1].scored()
    if session.ends.cut and data.metrics.postprocess is not None:
        # It is a function of the model's own outputs.
        scored = {}
    metrics = replace(data.metrics, ends=dict(zip(session.ends.names, session.ends.operators, strict=True)))
    batches.data = only_given_labels(training) if own else training
    # A pass over a stream for each evaluation would read all of it.
    validation = (with_given_labels(held) if own else held).held(HELD_BYTES)
    with joined(config.device) as processes:
        tuner = FineTuner(
            session,
            batches,
            validation,
            config,
            processes,
            partial(Scorer, metrics, scored, session.ends.names),
            truths(training, config.loss),
            truths(held, config.loss),
            config.training(),
            deadline,
            unnamed_output(training),
        )
        if start is not None:
            session.start_from(best_module(start))
        epochs = tuner.fit(progress)
    return FineTuned(tuple(asdict(epoch) for epoch in epochs), tuner.diverged, notes)


def _notes(session: PruningSession, given: Dataset, training: Dataset, config: PruneConfig) -> Iterator[str]:
    """Where the training ends, and the loss on labels, if any; `training`: the data `given` as it is trained on."""
    ends, forms = session.ends, label_forms(given)
    if config.train_until is not None:
        behind = " What is behind it was pruned and not trained." if ends.weights_behind else ""
        yield f"Fine-tuned until {config.train_until}.{behind}"
    elif ends.left_out:
        yield (
            f"{', '.join(ends.left_out)} cannot be fine-tuned through, and is as it was: fine-tuned until "
            f"{', '.join(name for name in ends.names if name not in ends.stand_ins)}."
        )
    yield from map(Detail, loss_notes(training, config))
    if forms and not truths(training, config.loss):
        kinds = kinds_text(tuple(dict.fromkeys(form.kind for form in forms.values())))
        yield (
            f"The labels of --data ({kinds}) are for the metric alone: the model was fine-tuned towards the outputs of "
            "the input model. --loss MODULE:FUNCTION can use them."
        )

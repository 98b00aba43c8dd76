"""The input model on labeled data before any work: how good it is, and whether its inputs or labels look wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from onnxprune.data.batch import IGNORED, Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.sources import other_transforms
from onnxprune.data.specs import InputSpec
from onnxprune.evaluation.labels import LabelForm, label_forms
from onnxprune.evaluation.runs import run_batch
from onnxprune.evaluation.scores import Metrics, RunningScores

LOG = logging.getLogger("onnxprune")

# Samples that the input model is run on, those for each other transform, and those for one that seems to be better.
LOOKED_AT = 512
TRIED = 48
TRIED_AGAIN = 200
MOST_LIKELY = 3
BATCH_SAMPLES = 32
# Fewer samples tell nothing.
FEW = 50
# A model that is this good needs no other transform.
GOOD = 0.75
# Another transform or numbering of the labels is told where it is right for so much more of the samples.
FAR_BETTER = 0.15
# Standard errors above chance below which a model is said to guess.
CHANCE_ERRORS = 3


@dataclass(frozen=True)
class Guesses:
    """The classes that a model finds, and the labels; `classes`: their number."""

    found: np.ndarray
    labels: np.ndarray
    classes: int

    def right(self, offset: int = 0) -> float:
        """The share of samples whose class is the label, moved by `offset`."""
        return float((self.found == self.labels + offset).mean()) if len(self.labels) else 0.0

    def allows(self, offset: int) -> bool:
        """Whether the labels, moved by `offset`, are classes of the model."""
        moved = self.labels + offset
        return bool(((moved >= 0) & (moved < self.classes)).all())


def first_look(
    session: ort.InferenceSession,
    data: Dataset,
    specs: list[InputSpec],
    metrics: Metrics,
    label_offset: int,
) -> tuple[str, ...]:
    """Log how good a model is on some samples of labeled data; returns warnings of wrong inputs and labels.

    `label_offset`: the setting, which has been added to the labels.

    Raises:
        DataError: the model does not run on a sample, or it cannot be read.
    """
    if not data.labeled:
        return ()
    forms = label_forms(data)
    scores = RunningScores(metrics, forms, [output.name for output in session.get_outputs()])
    some = data.spread(LOOKED_AT)
    key = next(iter(forms))
    guesses = []
    for batch, outputs in _outputs(session, some):
        scores.add(outputs, batch)
        guesses.append(_guesses(session, batch, outputs, key, forms[key]))
    if shown := ", ".join(f"{score.title} {score.text}" for score in scores.results()):
        LOG.info(f"The input model on {len(some):,} samples of {data.name}: {shown}.")
    warnings = tuple(_warnings(session, data, specs, key, label_offset, _joined(guesses)))
    for warning in warnings:
        LOG.warning(warning)
    return warnings


def _outputs(session: ort.InferenceSession, data: Dataset) -> Iterator[tuple[Batch, list[np.ndarray]]]:
    for batch in data.batches(BATCH_SAMPLES):
        yield batch, run_batch(session, batch)


def _guesses(
    session: ort.InferenceSession, batch: Batch, outputs: list[np.ndarray], key: str, form: LabelForm
) -> Guesses | None:
    """The classes for a batch; None where labels are not one class for each sample."""
    if form.kind != "classes" or form.axis is None:
        return None
    names = [output.name for output in session.get_outputs()]
    output = outputs[names.index(key) if key else 0]
    if not isinstance(output, np.ndarray) or output.ndim <= form.axis:
        return None
    known = batch.labels[key] != IGNORED
    found = output.argmax(form.axis).reshape(len(batch), -1)[:, 0]
    return Guesses(found[known], batch.labels[key][known], form.classes)


def _joined(guesses: list[Guesses | None]) -> Guesses | None:
    known = [each for each in guesses if each is not None]
    if not known:
        return None
    return Guesses(
        np.concatenate([each.found for each in known]),
        np.concatenate([each.labels for each in known]),
        known[0].classes,
    )


def _warnings(
    session: ort.InferenceSession,
    data: Dataset,
    specs: list[InputSpec],
    key: str,
    label_offset: int,
    guesses: Guesses | None,
) -> Iterator[str]:
    if guesses is None or len(guesses.labels) < FEW:
        return
    right, others = guesses.right(), False
    for offset in (1, -1):
        moved = guesses.right(offset)
        if guesses.allows(offset) and moved > right + FAR_BETTER:
            others = True
            yield (
                f"The labels of {data.name} look shifted by one: {moved:.1%} are right with --label-offset "
                f"{label_offset + offset}, {right:.1%} as they are."
            )
    if right < GOOD and not others:
        better = _better_transform(session, data, specs, key, guesses)
        if better is not None:
            others = True
            yield (
                f"The input model is right for {better[1]:.1%} of {data.name} with --transform {better[0]}, for "
                f"{right:.1%} as it is read now: check --transform."
            )
    chance = 1 / guesses.classes
    error = np.sqrt(chance * (1 - chance) / len(guesses.labels))
    if right <= chance + CHANCE_ERRORS * error and not others:
        yield (
            f"The input model is right for {right:.1%} of the samples of {data.name}, which is near chance: check "
            "--transform, the order of the classes, and that the labels are for this model."
        )


def _better_transform(
    session: ort.InferenceSession, data: Dataset, specs: list[InputSpec], key: str, guesses: Guesses
) -> tuple[str, float] | None:
    """The transform with which the model is right far more often, and how often; None: no other."""
    least = guesses.right() + FAR_BETTER
    first = {name: _right(session, other, key) for name, other in other_transforms(data.spread(TRIED), specs)}
    # Of a dozen transforms on few samples, one may seem to be better, and two alike.
    better = sorted((name for name in first if first[name] > least), key=lambda name: -first[name])
    some = dict(other_transforms(data.spread(TRIED_AGAIN), specs))
    again = {name: _right(session, some[name], key) for name in first if name in better[:MOST_LIKELY]}
    best = max(again, key=lambda name: again[name], default=None)
    return None if best is None or again[best] <= least else (best, again[best])


def _right(session: ort.InferenceSession, data: Dataset, key: str) -> float:
    """The share of samples whose class is the label."""
    form = label_forms(data)[key]
    parts = [_guesses(session, batch, outputs, key, form) for batch, outputs in _outputs(session, data)]
    joined = _joined(parts)
    return 0.0 if joined is None else joined.right()

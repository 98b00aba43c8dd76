"""The loss and the metric of a state of the training, on validation data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from onnxprune.data.dataset import Dataset
from onnxprune.training.distributed import Processes
from onnxprune.training.feed import Feed, in_order
from onnxprune.training.losses import Objective, Outputs
from onnxprune.training.module.batch_norm import re_estimate
from onnxprune.training.precision import Precision
from onnxprune.training.samples import Input, Samples
from onnxprune.training.scoring import MakeScorer
from onnxprune.training.session import PruningSession
from onnxprune.training.teacher import FORWARD_SAMPLES, KeptInOrder, Teacher

# Batches that BatchNormalization's statistics are measured on.
ESTIMATION_BATCHES = 32


@dataclass(frozen=True)
class Epoch:
    """An evaluation on validation data: the loss, and the value of the metric (None without labels).

    `step`: pruning steps so far; `epoch`: passes over the data so far. A record without training loss is the state
    right after a pruning step; with many steps there are no such records. `averaged`: of the average of the weights.
    `rate`: the fraction of the prunable weights that are removed.
    """

    step: int
    epoch: float
    training_loss: float | None
    loss: float
    metric: str | None
    score: float | None
    higher_is_better: bool = True
    averaged: bool = False
    rate: float | None = None

    def text(self, epochs: float | None) -> str:
        """Where the training is, out of so many epochs if that is known, and how good: a line of a log."""
        training = "" if self.training_loss is None else f"training loss {self.training_loss:.4g}, "
        score = "" if self.score is None else f", {self.metric} {self.score:.4g}"
        of = "" if epochs is None else f" of {epochs:.3g}"
        return f"epoch {self.epoch:.3g}{of}, {training}validation loss {self.loss:.4g}{score}"

    def better_than(self, other: Epoch) -> bool:
        """Whether the score is better, or equal at a smaller loss; without labels, whether the loss is smaller."""
        # It is NaN where all labels are ignored.
        if self.score is None or other.score is None or math.isnan(self.score) or math.isnan(other.score):
            return self.loss < other.loss
        sign = 1 if self.higher_is_better else -1
        return (sign * self.score, -self.loss) > (sign * other.score, -other.loss)


class Validation:
    """Validation data, of which this process sees its part, and what scores the outputs by the metric of the job."""

    def __init__(
        self,
        data: Dataset,
        training: Feed,
        processes: Processes,
        precision: Precision,
        make_scorer: MakeScorer,
    ):
        self._data = data.take(processes.share(len(data), data.group))
        self.name = data.name
        self._training = training
        self._processes = processes
        self._precision = precision
        self._make_scorer = make_scorer
        self._kept = KeptInOrder(data.source.repeats)

    def followed(self, teacher: Teacher) -> Iterator[tuple[Samples, Outputs]]:
        """This process's part of the data, with the teacher's outputs, which are kept while they fit in memory."""
        for number, samples in enumerate(self.batches()):
            yield samples, self._kept.outputs(number, samples, teacher)

    def batches(self) -> Iterator[Samples]:
        """This process's part of the data."""
        training = self._training
        for samples in in_order(self._data, training.specs, FORWARD_SAMPLES, training.workers):
            yield samples.to(self._processes.device)

    def statistics_inputs(self) -> Iterator[tuple[Input, ...]]:
        """The inputs that statistics of norms are measured on: this process's part of batches of the first epoch."""
        some = self._training.some(0, min(ESTIMATION_BATCHES, self._training.an_epoch))
        return (samples.to(self._processes.device).feeds() for runs in some for samples in runs)

    def evaluate(
        self,
        session: PruningSession,
        objective: Objective,
        teacher: Teacher,
        training_loss: float | None,
        averaged: bool = False,
    ) -> Epoch:
        """Score the current state of a session, its norms' statistics measured first where the settings say so.

        `averaged`: the weights are an average, which has no statistics yet.
        """
        module = session.module.eval()
        norms = session.modes.norms if averaged else session.modes.estimated
        re_estimate(norms, self.statistics_inputs(), module)
        self._processes.average(session.modes.statistics(module).values())
        scorer, loss, count = self._make_scorer(), 0.0, 0
        for number, samples in enumerate(self.batches()):
            with torch.no_grad():
                # A weight that is an output itself requires a gradient here too.
                outputs = tuple(each.detach() for each in self._precision.outputs(module, samples))
            followed = self._kept.outputs(number, samples, teacher) if objective.distill > 0 else None
            loss += len(samples) * float(objective(outputs, samples, followed))
            count += len(samples)
            arrays = [output.cpu().numpy() for output in outputs[: len(session.ends.names)]]
            scorer.add(arrays, samples.batch(self._data.name))
        total, samples_of_all = self._processes.total(loss), self._processes.total(count)
        result = scorer.merged(self._processes.gather(scorer.records()))
        epoch = session.updates / self._training.an_epoch
        return Epoch(
            session.steps_made, epoch, training_loss, total / samples_of_all, *result, averaged, session.rate
        )

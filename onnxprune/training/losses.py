"""What retraining minimises: the labels, the input model's own outputs, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from onnxprune.data import class_axis
from onnxprune.training.samples import Mixture

# Keeps log-probabilities finite where a Softmax in the graph has saturated.
PROBABILITY_FLOOR = 1e-12

Outputs = tuple[torch.Tensor, ...]


def _identity(output: torch.Tensor) -> torch.Tensor:
    return output


def _log_probabilities(output: torch.Tensor) -> torch.Tensor:
    return output.clamp_min(PROBABILITY_FLOOR).log()


# The operator that ends the graph -> its output as logits (softmax of logits, or of log-probabilities, is the same).
TO_LOGITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"Softmax": _log_probabilities}


@dataclass(frozen=True)
class Objective:
    """Loss of a batch: (1 - distill) x the labels' loss + distill x the distance from the input model's outputs.

    Class numbers: cross-entropy of the first output. Float labels: its mean squared error. Distillation: for
    outputs (N, C) of float type, the Kullback-Leibler divergence of the softened softmax, scaled by temperature ** 2
    (Hinton et al. 2015); for all others the squared error over the variance of the input model's output.
    """

    distill: float
    temperature: float
    last_operators: tuple[str, ...]
    """The operator type that produces each output."""

    def __call__(self, outputs: Outputs, batch: Mixture, teacher: Outputs | None) -> torch.Tensor:
        """Mean loss over the batch, a scalar; `teacher` holds the input model's outputs for the same inputs."""
        loss = outputs[0].new_zeros(())
        if batch.labels is not None and self.distill < 1:
            labels_loss = batch.share * self._label_loss(outputs[0], batch.labels)
            if batch.other_labels is not None:
                labels_loss = labels_loss + (1 - batch.share) * self._label_loss(
                    outputs[0], batch.other_labels
                )
            loss = loss + (1 - self.distill) * labels_loss
        if teacher is not None and self.distill > 0:
            loss = loss + self.distill * self._teacher_loss(outputs, teacher)
        return loss

    def _label_loss(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if labels.is_floating_point():
            return F.mse_loss(output.reshape(labels.shape), labels)
        axis = class_axis(tuple(output.shape), tuple(labels.shape))
        assert axis is not None, "checked before training"
        logits = self._logits(0, output)
        return F.cross_entropy(logits.movedim(axis, 1), labels)

    def _teacher_loss(self, outputs: Outputs, teacher: Outputs) -> torch.Tensor:
        losses = [
            self._distance(index, student, target)
            for index, (student, target) in enumerate(zip(outputs, teacher, strict=True))
            if student.is_floating_point()
        ]
        return torch.stack(losses).mean() if losses else outputs[0].new_zeros(())

    def _distance(self, index: int, student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if student.ndim == 2 and student.shape[1] > 1:
            log_q = F.log_softmax(self._logits(index, student) / self.temperature, 1)
            log_p = F.log_softmax(self._logits(index, target) / self.temperature, 1)
            return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean") * self.temperature**2
        return F.mse_loss(student, target) / target.var(correction=0).clamp_min(PROBABILITY_FLOOR)

    def _logits(self, index: int, output: torch.Tensor) -> torch.Tensor:
        return TO_LOGITS.get(self.last_operators[index], _identity)(output)

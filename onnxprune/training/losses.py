"""What retraining minimizes: the labels, the input model's own outputs, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from onnxprune.data.dataset import class_axis
from onnxprune.data.named import named
from onnxprune.errors import DataError, SettingError
from onnxprune.training.samples import Mixture

# Keeps log-probabilities finite where a Softmax in the graph has saturated, and divisors away from zero.
FLOOR = 1e-12

Outputs = tuple[torch.Tensor, ...]


def _identity(output: torch.Tensor) -> torch.Tensor:
    return output


def _log_probabilities(output: torch.Tensor) -> torch.Tensor:
    return output.clamp_min(FLOOR).log()


# The operator that ends the graph -> its output as logits (softmax of logits, or of log-probabilities, is the same).
TO_LOGITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"Softmax": _log_probabilities}


def _dice(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 - the mean over classes of 2 |P and L| / (|P| + |L|), P soft (Milletari et al. 2016); logits (N, C, ...)."""
    shares = logits.softmax(1)
    truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(shares)
    axes = [axis for axis in range(shares.ndim) if axis != 1]
    overlap, sizes = (shares * truth).sum(axes), (shares + truth).sum(axes)
    return 1 - (2 * overlap / sizes.clamp_min(FLOOR))[sizes > FLOOR].mean()


def _cosine(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - the mean cosine of the angle between samples."""
    return 1 - F.cosine_similarity(output.flatten(1), target.flatten(1), dim=1).mean()


CLASS_LOSSES = {"cross-entropy", "dice"}
_TARGET_LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.smooth_l1_loss,
    "cosine": _cosine,
}


@dataclass(frozen=True)
class Objective:
    """Loss of a batch: (1 - distill) x the labels' loss + distill x the distance from the input model's outputs.

    `loss`: the labels' loss of the first output, "auto" being cross-entropy for class numbers and the mean squared
    error for float labels; `custom` stands in its place. `distance`: from the input model's outputs, "kl" being the
    Kullback-Leibler divergence of the softened softmax, scaled by temperature ** 2 (Hinton et al. 2015), "mse" the
    squared error over the variance of the input model's output, "auto" kl for outputs (N, C) and mse for others.
    What comes after the graph's own outputs are values inside of it, which are compared by cosine or mse.
    """

    distill: float
    temperature: float
    last_operators: tuple[str, ...]
    """The operator type that produces each of the graph's own outputs."""
    loss: str = "auto"
    label_smoothing: float = 0.0
    distance: str = "auto"
    scales: tuple[float, ...] = ()
    """The variance of each of the input model's outputs and values."""
    custom: Callable[[Outputs, torch.Tensor], torch.Tensor] | None = None

    def __call__(self, outputs: Outputs, batch: Mixture, teacher: Outputs | None) -> torch.Tensor:
        """Mean loss over the batch, a scalar; `teacher` holds the input model's outputs for the same inputs."""
        loss = outputs[0].new_zeros((), dtype=torch.float32)
        if batch.labels is not None and self.distill < 1:
            labels_loss = batch.share * self._label_loss(outputs, batch.labels)
            if batch.other_labels is not None:
                labels_loss = labels_loss + (1 - batch.share) * self._label_loss(outputs, batch.other_labels)
            loss = loss + (1 - self.distill) * labels_loss
        if teacher is not None and self.distill > 0:
            loss = loss + self.distill * self._teacher_loss(outputs, teacher)
        return loss

    def _label_loss(self, outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        if self.custom is not None:
            return self.custom(outputs[: len(self.last_operators)], labels)
        output = outputs[0]
        if labels.is_floating_point():
            name = "mse" if self.loss == "auto" else self.loss
            return _TARGET_LOSSES[name](output.reshape(labels.shape), labels)
        axis = class_axis(tuple(output.shape), tuple(labels.shape))
        assert axis is not None, "checked before training"
        logits = self._logits(0, output).movedim(axis, 1)
        if self.loss == "dice":
            return _dice(logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _teacher_loss(self, outputs: Outputs, teacher: Outputs) -> torch.Tensor:
        losses = [
            self._distance(index, student, target)
            for index, (student, target) in enumerate(zip(outputs, teacher, strict=True))
            if student.is_floating_point()
        ]
        return torch.stack(losses).mean() if losses else outputs[0].new_zeros(())

    def _distance(self, index: int, student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        classes = index < len(self.last_operators) and student.ndim == 2 and student.shape[1] > 1
        if self.distance in ("auto", "kl") and classes:
            log_q = F.log_softmax(self._logits(index, student) / self.temperature, 1)
            log_p = F.log_softmax(self._logits(index, target) / self.temperature, 1)
            return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean") * self.temperature**2
        if self.distance == "cosine":
            return _cosine(student, target)
        return F.mse_loss(student, target) / max(self.scales[index], FLOOR)

    def _logits(self, index: int, output: torch.Tensor) -> torch.Tensor:
        return TO_LOGITS.get(self.last_operators[index], _identity)(output)


def check_labels(labels: torch.Tensor, loss: str) -> None:
    """Refuse a loss that labels of this type do not go with.

    Raises:
        DataError: classes are wanted and targets given, or the other way round.
    """
    if loss in CLASS_LOSSES and labels.is_floating_point():
        raise DataError(
            f"--loss {loss} takes class numbers, the labels are floats: use --loss mse, l1 or huber"
        )
    if loss in _TARGET_LOSSES and not labels.is_floating_point():
        raise DataError(
            f"--loss {loss} takes float labels, these are class numbers: use --loss cross-entropy"
        )


def load_function(text: str) -> Callable[[Outputs, torch.Tensor], torch.Tensor]:
    """The function that MODULE:FUNCTION names: takes (outputs, labels), gives a scalar.

    Raises:
        SettingError: there is none.
    """
    module, _, name = text.partition(":")
    try:
        function = named(module, name)
    except Exception as error:
        raise SettingError(
            f"--loss {text}: {error}; name a function of (outputs, labels) in a module of this folder or installed"
        ) from None
    if not callable(function):
        raise SettingError(f"--loss {text} is no function: name one of (outputs, labels)")
    return function

"""The loss of fine-tuning: on the labels, on the outputs of the input model (distillation), or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from onnxprune.data.dataset import class_axis
from onnxprune.data.named import named
from onnxprune.errors import DataError, SettingError, first_line
from onnxprune.training.samples import Labels, Samples

# Keeps log-probabilities of a saturated Softmax finite, and divisors away from zero.
FLOOR = 1e-12

Outputs = tuple[torch.Tensor, ...]


def _identity(output: torch.Tensor) -> torch.Tensor:
    return output


def _log_probabilities(output: torch.Tensor) -> torch.Tensor:
    return output.clamp_min(FLOOR).log()


# The last operator of the graph -> its output as logits (softmax of logits and of log-probabilities is the same).
TO_LOGITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"Softmax": _log_probabilities}


def _dice(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 - the mean over classes of 2 |P and L| / (|P| + |L|), P soft (Milletari et al. 2016); logits (N, C, ...)."""
    known = (labels >= 0).unsqueeze(1)
    shares = logits.softmax(1) * known
    truth = F.one_hot(labels.clamp_min(0), logits.shape[1]).movedim(-1, 1).to(shares) * known
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
    """Loss of a batch: (1 - distill) * loss on the labels + distill * distance from the input model's outputs.

    `loss`: of each output on its labels, and their mean; "auto" is cross-entropy for classes (those below 0 are
    ignored), binary cross-entropy for yes or no, and the mean squared error for float targets. `custom`: a
    function that replaces it. `distance`: "kl" is the Kullback-Leibler divergence of softened outputs, times
    temperature ** 2 (Hinton et al. 2015, arXiv 1503.02531); "mse" the squared error divided by the variance of the
    input model's output; "auto" kl for outputs (N, C) and mse for others. Values of --distill-features, which follow
    the graph's outputs, are compared by cosine or mse.
    """

    distill: float
    temperature: float
    names: tuple[str, ...]
    """The names of the graph's outputs."""
    last_operators: tuple[str, ...]
    """The operator type that produces each of the graph's own outputs."""
    loss: str = "auto"
    label_smoothing: float = 0.0
    distance: str = "auto"
    scales: tuple[float, ...] = ()
    """The variance of each of the input model's outputs and values."""
    custom: Callable[[Outputs, Any], torch.Tensor] | None = None
    trained: frozenset[str] = frozenset({""})
    """The outputs whose labels the loss is of; other labels are for metrics alone."""
    unnamed: str = ""
    """The output of the labels that have no name, which a function takes as they are."""

    def __call__(self, outputs: Outputs, batch: Samples, teacher: Outputs | None) -> torch.Tensor:
        """Mean loss over the batch, a scalar; `teacher`: the input model's outputs for the same inputs."""
        loss = outputs[0].new_zeros((), dtype=torch.float32)
        labels, others = self.wanted(batch.labels), self.wanted(batch.other_labels)
        if labels and self.distill < 1:
            labels_loss = batch.share * self._label_loss(outputs, labels)
            if others:
                labels_loss = labels_loss + (1 - batch.share) * self._label_loss(outputs, others)
            loss = loss + (1 - self.distill) * labels_loss
        if teacher is not None and self.distill > 0:
            loss = loss + self.distill * self._teacher_loss(outputs, teacher)
        return loss

    def wanted(self, labels: Labels) -> Labels:
        """The labels that the loss is of."""
        return {name: truth for name, truth in labels.items() if name in self.trained}

    def _label_loss(self, outputs: Outputs, labels: Labels) -> torch.Tensor:
        if self.custom is not None:
            given = labels[self.unnamed] if set(labels) == {self.unnamed} else labels
            return _checked(self.custom, outputs[: len(self.last_operators)], given)
        losses = [
            self._output_loss(self.names.index(name) if name else 0, outputs, truth)
            for name, truth in labels.items()
        ]
        return torch.stack(losses).mean()

    def _output_loss(self, index: int, outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        output = outputs[index]
        if labels.dtype == torch.bool and self.loss in _TARGET_LOSSES:
            labels = labels.to(output.dtype)
        if labels.dtype == torch.bool:
            return self._yes_or_no(index, output.reshape(labels.shape), labels.to(output.dtype))
        if labels.is_floating_point():
            name = "mse" if self.loss == "auto" else self.loss
            return _TARGET_LOSSES[name](output.reshape(labels.shape), labels)
        axis = class_axis(tuple(output.shape), tuple(labels.shape))
        assert axis is not None, "checked before training"
        logits = self._logits(index, output).movedim(axis, 1)
        if self.loss == "dice":
            return _dice(logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _yes_or_no(self, index: int, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.last_operators[index] == "Sigmoid":
            return F.binary_cross_entropy(output.clamp(0, 1), labels)
        return F.binary_cross_entropy_with_logits(output, labels)

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


def check_labels(labels: Labels, loss: str) -> None:
    """Check that labels of these types fit a loss.

    Raises:
        DataError: the loss needs classes and the labels are targets, or vice versa.
    """
    for truth in labels.values():
        classes = not truth.is_floating_point() and truth.dtype != torch.bool
        if loss in CLASS_LOSSES and not classes:
            given, instead = (
                ("floats", "mse, l1 or huber") if truth.is_floating_point() else ("yes or no", "auto")
            )
            raise DataError(
                f"--loss {loss} needs integer labels, but the labels are {given}: use --loss {instead}"
            )
        if loss in _TARGET_LOSSES and classes:
            raise DataError(
                f"--loss {loss} needs float labels, but the labels are integers: use --loss cross-entropy"
            )


def _checked(custom: Callable[[Outputs, Any], torch.Tensor], outputs: Outputs, labels: Any) -> torch.Tensor:
    """What a user's loss function returns.

    Raises:
        DataError: it fails, or returns no loss.
    """
    name = f"--loss {getattr(custom, '__name__', type(custom).__name__)}"
    try:
        found = custom(outputs, labels)
    except Exception as error:
        raise DataError(
            f"{name} failed with {type(error).__name__}: {first_line(error)}; correct it"
        ) from error
    if not isinstance(found, torch.Tensor) or found.numel() != 1 or not found.is_floating_point():
        given = (
            f"a tensor of shape {list(found.shape)}"
            if isinstance(found, torch.Tensor)
            else type(found).__name__
        )
        raise DataError(f"{name} returned {given}: return one number, a float tensor, for example its mean")
    return found.reshape(())


def load_function(text: str) -> Callable[[Outputs, Any], torch.Tensor]:
    """The loss function MODULE:FUNCTION: of (outputs, labels), a scalar; labels of several outputs are a dict.

    Raises:
        SettingError: there is no such function.
    """
    module, _, name = text.partition(":")
    try:
        function = named(module, name)
    except Exception as error:
        raise SettingError(
            f"--loss {text}: {error}; give a function of (outputs, labels) in a module of this folder or an installed "
            "one"
        ) from None
    if not callable(function):
        raise SettingError(f"--loss {text} is not a function: give a function of (outputs, labels)")
    return function

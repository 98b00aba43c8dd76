"""The loss of fine-tuning: on the labels, on the outputs of the input model (distillation), or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from onnxprune.data.batch import IGNORED
from onnxprune.data.named import named
from onnxprune.errors import DataError, SettingError, first_line
from onnxprune.training.samples import Labels, Samples
from onnxprune.training.truths import NUMBERS, OTHER, YES_OR_NO, Truth

# Keeps log-probabilities of a saturated Softmax finite, and divisors away from zero.
FLOOR = 1e-12
# Keeps logits of a saturated Sigmoid finite: 1 less than this is a number of float32.
LEAST_SHARE = 1e-6

Outputs = tuple[torch.Tensor, ...]


def _identity(output: torch.Tensor) -> torch.Tensor:
    return output


def _log_probabilities(output: torch.Tensor) -> torch.Tensor:
    return output.clamp_min(FLOOR).log()


# The last operator of the graph -> its output as logits (softmax of logits and of log-probabilities is the same).
TO_LOGITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Softmax": _log_probabilities,
    "Sigmoid": lambda output: output.logit(LEAST_SHARE),
}


def _dice(
    shares: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, axes: Sequence[int]
) -> torch.Tensor:
    """1 - the mean over classes of 2 |P and L| / (|P| + |L|), P soft (Milletari et al. 2016); sums over `axes`."""
    shares, truth = shares * known, truth.to(shares) * known
    overlap, sizes = (shares * truth).sum(tuple(axes)), (shares + truth).sum(tuple(axes))
    present = sizes > FLOOR
    return 1 - (2 * overlap / sizes.clamp_min(FLOOR))[present].mean() if present.any() else shares.sum()


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """The mean over labels that are not ignored; 0 without any."""
    if not labels.is_floating_point() and not (labels != IGNORED).any():
        return logits.sum() * 0
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, label_smoothing=smoothing)


def _cosine(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - the mean cosine of the angle between samples."""
    count = len(output)
    return 1 - F.cosine_similarity(output.reshape(count, -1), target.reshape(count, -1), dim=1).mean()


_TARGET_LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.smooth_l1_loss,
    "cosine": _cosine,
}


@dataclass(frozen=True)
class Objective:
    """Loss of a batch: (1 - distill) * loss on the labels + distill * distance from the input model's outputs.

    `loss`: of each output on its labels, and their mean; "auto" is cross-entropy for classes, binary cross-entropy for
    yes or no, and the mean squared error for targets; ignored labels do not count. `custom`: a function that replaces
    it. `distance`: "kl" is the Kullback-Leibler divergence of softened outputs, times temperature ** 2 (Hinton et al.
    2015, arXiv 1503.02531); "mse" the squared error divided by the variance of the input model's output; "auto" kl for
    outputs (N, C) that are one distribution, and mse for others. Values of --distill-features, which follow the graph's
    outputs, are compared by cosine or mse.
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
    trained: Mapping[str, Truth] = field(default_factory=dict)
    """The outputs whose labels the loss is of, and how these are read; other labels are for metrics alone."""
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
            return _checked(self._custom_name, self.custom, outputs[: len(self.last_operators)], given)
        losses = [self._output_loss(name, outputs, truth) for name, truth in labels.items()]
        return torch.stack(losses).mean()

    @property
    def _custom_name(self) -> str:
        return self.loss if ":" in self.loss else getattr(self.custom, "__name__", type(self.custom).__name__)

    def _output_loss(self, name: str, outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        index = self.names.index(name) if name else 0
        output, truth = outputs[index], self.trained[name]
        if self.loss in _TARGET_LOSSES or truth.kind == NUMBERS:
            return self._target_loss(output.reshape(labels.shape), labels, truth)
        if truth.kind in YES_OR_NO:
            return self._yes_or_no(output.reshape(labels.shape), labels, truth)
        logits = self._logits(index, output, truth).movedim(truth.axis, 1)
        labels = labels.movedim(truth.axis, 1) if truth.kind == "soft" else labels
        if self.loss != "dice":
            return _cross_entropy(logits, labels, self.label_smoothing)
        axes = [axis for axis in range(logits.ndim) if axis != 1]
        if truth.kind == "soft":
            return _dice(logits.softmax(1), labels, torch.ones_like(labels), axes)
        classes = F.one_hot(labels.clamp_min(0), logits.shape[1]).movedim(-1, 1)
        return _dice(logits.softmax(1), classes, (labels >= 0).unsqueeze(1), axes)

    def _target_loss(self, output: torch.Tensor, labels: torch.Tensor, truth: Truth) -> torch.Tensor:
        if truth.kind in YES_OR_NO:
            known = labels != IGNORED
            labels = (labels * (1 - truth.low) + truth.low).to(output.dtype)
            if not known.all():
                output, labels = output[known][None], labels[known][None]
                if not labels.numel():
                    return output.sum()
        return _TARGET_LOSSES["mse" if self.loss == "auto" else self.loss](output, labels)

    def _yes_or_no(self, output: torch.Tensor, labels: torch.Tensor, truth: Truth) -> torch.Tensor:
        known = labels != IGNORED
        if self.loss == "dice":
            shares = output.clamp(0, 1) if truth.probabilities else output.sigmoid()
            axes = [axis for axis in range(shares.ndim) if axis != 1 or truth.kind == "binary"]
            return _dice(shares, labels == 1, known, axes)
        if not known.all():
            output, labels = output[known], labels[known]
            if not labels.numel():
                return output.sum()
        shares = labels.to(output.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        if truth.probabilities:
            return F.binary_cross_entropy(output.clamp(0, 1), shares)
        return F.binary_cross_entropy_with_logits(output, shares)

    def _teacher_loss(self, outputs: Outputs, teacher: Outputs) -> torch.Tensor:
        losses = [
            self._distance(index, student, target)
            for index, (student, target) in enumerate(zip(outputs, teacher, strict=True))
            if student.is_floating_point() and student.numel()
        ]
        # Of outputs without elements, so that there is a gradient.
        return (
            torch.stack(losses).mean() if losses else torch.stack([each.sum() for each in outputs]).sum() * 0
        )

    def _distance(self, index: int, student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if student.shape != target.shape:
            raise DataError(
                f"output {self._name(index)!r} has the shape {list(student.shape)}, that of the input model "
                f"{list(target.shape)}, so that it cannot be trained towards: give --train-until with a node before "
                "its rows are selected, or labels and --distill 0"
            )
        classes = index < len(self.last_operators) and student.ndim == 2 and student.shape[1] > 1
        if classes and (self.distance == "kl" or (self.distance == "auto" and self._one_of_several(index))):
            log_q = F.log_softmax(self._logits(index, student) / self.temperature, 1)
            log_p = F.log_softmax(self._logits(index, target) / self.temperature, 1)
            return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean") * self.temperature**2
        if self.distance == "cosine":
            return _cosine(student, target)
        return F.mse_loss(student, target) / max(self.scales[index], FLOOR)

    def _name(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else f"number {index}"

    def _one_of_several(self, index: int) -> bool:
        """Whether an output is one distribution over classes, by its labels, else by its last operator."""
        truth = self.trained.get(self.names[index]) or (self.trained.get("") if index == 0 else None)
        if truth is not None and truth.kind != OTHER:
            return truth.one_of_several
        return self.last_operators[index] != "Sigmoid"

    def _logits(self, index: int, output: torch.Tensor, truth: Truth | None = None) -> torch.Tensor:
        if truth is not None and truth.probabilities:
            return _log_probabilities(output)
        return TO_LOGITS.get(self.last_operators[index], _identity)(output)


def _checked(
    name: str, custom: Callable[[Outputs, Any], torch.Tensor], outputs: Outputs, labels: Any
) -> torch.Tensor:
    """What a user's loss function returns.

    Raises:
        DataError: it fails, or returns no loss.
    """
    name = f"--loss {name}"
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
    if torch.is_grad_enabled() and any(each.requires_grad for each in outputs) and found.grad_fn is None:
        raise DataError(
            f"{name} returned a number that the outputs cannot be trained by: compute it from them by functions of "
            "torch, without detach, numpy or argmax"
        )
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

"""How a loss reads labels, and which losses take which labels; this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxprune.errors import DataError

TARGET_LOSSES = ("mse", "l1", "huber", "cosine")
CLASS_LOSSES = ("cross-entropy", "dice")
NUMBERS = "targets"
YES_OR_NO = ("binary", "multi-label")
OTHER = "other"

_DISTRIBUTIONS = ("classes", "soft")
_LOSS_NAMES = {
    "mse": "mean squared error",
    "l1": "mean absolute error",
    "huber": "Huber loss",
    "cosine": "1 - cosine",
    "dice": "Dice loss",
}


@dataclass(frozen=True)
class Truth:
    """How the labels of an output are read.

    `kind`: "classes" (int64, of each sample or position), "soft" (float32, probabilities of the classes), "binary"
    (int64, 0 or 1 for an output of one unit), "multi-label" (the same for each class), "targets" (float32), or "other"
    (anything, for a loss of the user's own). Integers can be `IGNORED`. `axis`: of the classes in the output.
    `probabilities`: the output has probabilities and not logits. `low`: the number that 0 stands for, -1 or 0.
    """

    kind: str
    axis: int = 1
    probabilities: bool = False
    low: int = 0

    @property
    def one_of_several(self) -> bool:
        """Whether each sample is of one class, so that the outputs are one distribution."""
        return self.kind in _DISTRIBUTIONS


def check_truths(truths: Mapping[str, Truth], loss: str) -> None:
    """Check that a loss takes the labels of every output.

    Raises:
        DataError: it needs classes and the labels are targets, or vice versa.
    """
    for output, truth in truths.items():
        labels = f"labels of {output}" if output else "labels"
        if loss in CLASS_LOSSES and truth.kind == NUMBERS:
            raise DataError(
                f"--loss {loss} needs integer labels, but the {labels} are floats: use --loss mse, l1 or huber"
            )
        if loss in TARGET_LOSSES and truth.kind == "classes":
            raise DataError(
                f"--loss {loss} needs float labels, but the {labels} are integers: use --loss cross-entropy"
            )


def loss_name(truth: Truth, loss: str) -> str:
    """What a loss is on such labels, in words; `loss`: the setting, which is no function of the user's."""
    if loss in TARGET_LOSSES or truth.kind == NUMBERS:
        return _LOSS_NAMES["mse" if loss == "auto" else loss]
    read = "probabilities" if truth.probabilities else "logits"
    if loss == "dice":
        return f"{_LOSS_NAMES[loss]} of {read}"
    return f"{'binary ' if truth.kind in YES_OR_NO else ''}cross-entropy of {read}"

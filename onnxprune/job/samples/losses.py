"""The loss on the labels of a job's data: how it reads them, whether it takes them, and what it is."""

from __future__ import annotations

from collections.abc import Iterator

from onnxprune.config.training import LossSettings
from onnxprune.data.dataset import Dataset
from onnxprune.errors import DataError
from onnxprune.evaluation.labels import KINDS, LabelForm, label_forms
from onnxprune.training.truths import NUMBERS, OTHER, YES_OR_NO, Truth, check_truths, loss_name


def is_own(loss: str) -> bool:
    """Whether the setting names a function of the user's."""
    return ":" in loss


def truths(data: Dataset, loss: str) -> dict[str, Truth]:
    """How the loss reads the labels of each output; without those that no loss can be of."""
    forms = label_forms(data).items()
    if is_own(loss):
        return {output: Truth(OTHER) for output, _ in forms}
    return {output: _truth(form) for output, form in forms if form.trains}


def _truth(form: LabelForm) -> Truth:
    kind = "classes" if form.kind == "positions" else form.kind
    axis = 1 if form.axis is None else form.axis
    return Truth(kind, axis, form.probabilities, form.low)


def check_losses(training: Dataset, validation: Dataset, settings: LossSettings) -> None:
    """Check that the loss takes the labels, and is the same on training and validation data.

    Raises:
        DataError: it is not.
    """
    both = [truths(data, settings.loss) for data in (training, validation)]
    for each in both:
        check_truths(each, settings.loss)
    for output in both[0].keys() & both[1].keys():
        one, other = (_family(each[output]) for each in both)
        if one != other:
            kinds = [KINDS[label_forms(data)[output].kind] for data in (training, validation)]
            raise DataError(
                f"the labels of {training.name} are {kinds[0]}, those of {validation.name} {kinds[1]}, which have "
                "different losses: give the same form in both"
            )


def _family(truth: Truth) -> str:
    if truth.one_of_several:
        return "cross-entropy"
    return "binary" if truth.kind in YES_OR_NO else NUMBERS


def loss_notes(data: Dataset, settings: LossSettings) -> Iterator[str]:
    """Which loss is used on the labels, for the summary."""
    forms = label_forms(data)
    if is_own(settings.loss) and forms:
        yield f"The loss on the labels (as they are) is {settings.loss}."
        return
    for output, truth in truths(data, settings.loss).items():
        form = forms[output]
        read = f"{form.low} or {form.high}" if truth.low else KINDS[form.kind]
        of = f" of {output}" if output else ""
        yield f"The loss on the labels{of} ({read}) is {loss_name(truth, settings.loss)}."

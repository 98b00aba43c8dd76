"""The forms that labels come in, and how each becomes the one form that metrics and losses take."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.data.batch import IGNORED, Batch, Labels
from onnxprune.data.dataset import Dataset, Prepare
from onnxprune.data.finite import Numbers, check_finite
from onnxprune.data.source import Arrays
from onnxprune.errors import DataError

# The label of ignored pixels in image files.
VOID = 255
# The class of rows without a box.
UNUSED = -1
# Rounding of relative numbers in label files.
SLACK = 0.01
# Probabilities of all classes add up to 1, but for rounding.
SUM_SLACK = 0.02

KINDS = {
    "classes": "class numbers",
    "positions": "class numbers by position, for example masks",
    "binary": "0 or 1",
    "multi-label": "0 or 1 for each class",
    "soft": "probabilities of the classes",
    "targets": "numbers of the output's shape",
    "pairs": "a score for each pair of samples",
    "boxes": "boxes [class, center x, center y, width, height]",
    "text": "texts",
    "other": "anything, for MODULE:FUNCTION",
}
"""Kinds of labels, in words."""


# Kinds of labels that a loss can be of.
TRAINED = ("classes", "positions", "binary", "multi-label", "soft", "targets")

# Kinds of labels that are class numbers, or hold them.
NUMBERED = ("classes", "positions", "binary", "boxes")


@dataclass(frozen=True)
class LabelForm:
    """How the labels of one output are to be read.

    `kind`: one of `KINDS`. `shape`: of one sample's normalized labels. `classes`: their number, along `axis` of the
    output; without an axis the output consists of class numbers. `one_hot`: the axis of labels with a single 1 for each
    sample or position. `low` and `high`: the numbers that mean 0 and 1 in binary labels. `probabilities`: the output
    has probabilities and not logits. `span`: the range of targets: 255 for 8-bit pixels, 2 for -1 to 1, 1 for 0 to 1,
    else that of the targets seen. `offset`: added to class numbers that are not ignored.
    """

    kind: str
    data: str
    shape: tuple[int, ...] | None = None
    classes: int = 0
    axis: int | None = 1
    one_hot: int | None = None
    low: int = 0
    high: int = 1
    probabilities: bool = False
    span: float = 1.0
    offset: int = 0

    @property
    def numbered(self) -> bool:
        """Whether labels are class numbers, which an offset can be added to."""
        return self.kind in NUMBERED and self.one_hot is None

    @property
    def trains(self) -> bool:
        """Whether a loss can be of these labels; the others are for metrics."""
        return self.kind in TRAINED and (self.axis is not None or self.kind == "targets")

    @property
    def threshold(self) -> float:
        """Outputs above it mean 1."""
        return 0.5 if self.probabilities else 0.0

    @property
    def group(self) -> int:
        """How many consecutive samples are scored together."""
        return 2 if self.kind == "pairs" else 1

    def normalize(self, labels: np.ndarray, numbers: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Labels of this form, samples along the first axis, in the form of their kind; `numbers`: of the samples.

        classes: int64 (N,); positions: int64 (N, ...); binary and multi-label: int64, 0 or 1, of the output's shape;
        all of these with `IGNORED`; soft, targets, pairs and boxes: float32; text: objects; other: unchanged.

        Raises:
            DataError: they are not of this form.
        """
        return _NORMALIZE[self.kind](self, self.as_given(labels), numbers)

    def as_given(self, labels: np.ndarray) -> np.ndarray:
        """Labels as they are, but for the offset."""
        return shifted(labels, self.offset, self.kind) if self.offset else labels

    def shaped(self, labels: np.ndarray) -> np.ndarray:
        """Labels with the axes of `shape`, which is that of one sample; those of other samples may be longer.

        Raises:
            DataError: they have other axes.
        """
        if self.shape is None or labels.shape[1:] == self.shape:
            return labels
        sides, own = ([side for side in shape if side != 1] for shape in (labels.shape[1:], self.shape))
        flat = min(labels.ndim - 1, len(self.shape)) == 1 and math.prod(sides) == math.prod(own)
        if sides == own or (flat and len(sides) != len(own)):
            return labels.reshape(len(labels), *self.shape)
        if len(sides) == len(own):
            left = iter(sides)
            return labels.reshape(len(labels), *(1 if side == 1 else next(left) for side in self.shape))
        if labels.ndim - 1 == len(self.shape):
            return labels
        raise DataError(
            f"the labels of {self.data} have the shapes {list(self.shape)} and {list(labels.shape[1:])} in two "
            "samples: give all of them the same number of axes"
        )


def shifted(labels: np.ndarray, offset: int, kind: str) -> np.ndarray:
    """Labels with an offset added to class numbers: not to ignored ones, nor to boxes but for their class."""
    if labels.dtype.kind in "iub":
        labels = labels.astype(np.int64)
    if kind == "boxes":
        moved = labels.copy()
        moved[..., 0] += np.where(labels[..., 0] != UNUSED, offset, 0)
        return moved
    stays = labels == IGNORED
    if labels[:1].size > 1:
        stays |= (labels < 0) | (labels == VOID)
    return labels + np.where(stays, 0, offset).astype(labels.dtype)


def _classes(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    check_finite({"labels": labels}, form.data, numbers)
    if form.one_hot is not None:
        ones = np.moveaxis(labels, form.one_hot, -1)
        wrong = ((ones != 0) & (ones != 1)).any(-1) | (ones.sum(-1) != 1)
        if wrong.any():
            raise DataError(
                f"the labels of {form.data} are one-hot in some samples, but {_where(wrong, numbers)} has not "
                "exactly one 1: give class numbers, or --metric iou where samples have several classes"
            )
        return form.shaped(ones.argmax(-1).astype(np.int64))
    found = form.shaped(labels)
    if labels.dtype.kind == "f" and (wrong := found != np.round(found)).any():
        raise DataError(
            f"the labels of {form.data} are class numbers in some samples, but "
            f"{_first(found, wrong)} at {_where(wrong, numbers)} is none: give integers"
        )
    found = found.astype(np.int64)
    wrong = (found < 0) | (found >= form.classes if form.axis is not None else False)
    ignored = found == IGNORED
    if form.kind == "positions":
        ignored |= (found < 0) | (found == VOID) & wrong
    wrong &= ~ignored
    if wrong.any():
        from_one = form.axis is not None and found[~ignored].min() == 1 and found.max() == form.classes
        raise DataError(
            f"the labels of {form.data} have the class {_first(found, wrong)}, at {_where(wrong, numbers)}, but the "
            f"output has {form.classes} classes, 0 to {form.classes - 1}: give classes in that range, {IGNORED} for "
            f"samples to ignore, or shift them by --label-offset{' -1' if from_one else ''}"
        )
    return np.where(ignored, IGNORED, found)


def _zeros_and_ones(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    check_finite({"labels": labels}, form.data, numbers)
    ignored = labels == IGNORED
    if form.shape is not None and len(form.shape) > 1:
        ignored |= (labels == VOID) & (form.high != VOID)
        if labels.dtype.kind in "iu":
            ignored |= labels < 0
    wrong = (labels != form.low) & (labels != form.high) & ~ignored
    if wrong.any():
        raise DataError(
            f"the labels of {form.data} are {form.low} or {form.high} in some samples, but "
            f"{_first(labels, wrong)} at {_where(wrong, numbers)}: give only {form.low} and {form.high}, or --metric "
            "mse if they are targets"
        )
    return form.shaped(np.where(ignored, IGNORED, labels == form.high).astype(np.int64))


def _floats(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    found = form.shaped(labels.astype(np.float32))
    check_finite({"labels": found}, form.data, numbers)
    return found


def _soft(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    found = _floats(form, labels, numbers)
    wrong = ~are_distributions(found, form.axis or 1)
    if wrong.any():
        raise DataError(
            f"the labels of {form.data} are probabilities of the classes in some samples, but those of "
            f"{_where(wrong, numbers)} do not add up to 1: correct them, or give --metric mse if they are targets"
        )
    return found


def are_distributions(values: np.ndarray, axis: int) -> np.ndarray:
    """Where numbers along an axis are probabilities that add up to 1."""
    sums = np.abs(values.sum(axis, dtype=np.float64) - 1) <= SUM_SLACK
    return np.asarray(sums & (values >= 0).all(axis) & (values <= 1 + SUM_SLACK).all(axis))


def _boxes(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    found = _floats(form, labels, numbers)
    classes, used = found[..., 0], found[..., 0] != UNUSED
    most = form.classes or np.inf
    wrong = used & ((classes < 0) | (classes != np.round(classes)) | (classes >= most))
    if wrong.any():
        raise DataError(
            f"the boxes of {form.data} have the class {_first(classes, wrong)}, at {_where(wrong, numbers)}: give "
            f"classes of 0 to {most - 1:g}, {UNUSED} in unused rows, or shift them by --label-offset"
        )
    inside = (found[..., 1:] >= -SLACK) & (found[..., 1:] <= 1 + SLACK)
    if (wrong := used & ~inside.all(-1)).any():
        raise DataError(
            f"the boxes of {form.data} are not in [0, 1] at {_where(wrong, numbers)}: give center x, center y, width "
            "and height relative to the image"
        )
    return found


def _unchanged(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    return labels


def _texts(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    return np.array([_decoded(text) for text in labels.ravel()], dtype=object)


_NORMALIZE: Mapping[str, Callable[[LabelForm, np.ndarray, Numbers], np.ndarray]] = {
    "classes": _classes,
    "positions": _classes,
    "binary": _zeros_and_ones,
    "multi-label": _zeros_and_ones,
    "soft": _soft,
    "targets": _floats,
    "pairs": _floats,
    "boxes": _boxes,
    "text": _texts,
    "other": _unchanged,
}


def _decoded(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)


def _first(values: np.ndarray, wrong: np.ndarray) -> str:
    return f"{float(values.reshape(wrong.shape)[wrong][0]):g}"


def _where(wrong: np.ndarray, numbers: Numbers) -> str:
    index = int(np.argwhere(wrong)[0][0])
    return "a sample" if numbers is None else f"sample {numbers[index]}"


@dataclass(frozen=True)
class Normalized:
    """Prepares batches whose labels are in the form of their kind; `forms`: by output, as in `Batch.labels`.

    `keeps`: batches have the labels as they were given as well; `unnamed`: the key of the labels without a name: ""
    where they are of the first output, else the name of theirs. `names`: where labels are read as those of other
    outputs, these by the key that they would have; labels that have none are left out.
    """

    prepare: Prepare
    forms: Mapping[str, LabelForm]
    keeps: bool = False
    unnamed: str = ""
    names: Mapping[str, str] | None = None

    @property
    def label_names(self) -> Collection[str]:
        """See `Prepare`."""
        return self.prepare.label_names

    def labels_of(self, arrays: Arrays) -> Labels:
        """See `Prepare`."""
        return self._normalized(self.prepare.labels_of(arrays))

    def __call__(self, arrays: Arrays) -> Batch:
        batch = self.prepare(arrays)
        given = {key: self.forms[key].as_given(array) for key, array in self._named(batch.labels).items()}
        return replace(batch, labels=self._normalized(batch.labels), given=given if self.keeps else {})

    def _normalized(self, labels: Labels) -> Labels:
        return {key: self.forms[key].normalize(array) for key, array in self._named(labels).items()}

    def _named(self, labels: Labels) -> Labels:
        """Labels by the output that they are of."""
        found = {key or self.unnamed: array for key, array in labels.items()}
        if self.names is None:
            return found
        return {self.names[key]: array for key, array in found.items() if key in self.names}


def redirected(data: Dataset, found: Mapping[str, tuple[str, LabelForm]]) -> Dataset:
    """The dataset with the labels in `found`: by output, as before, the output that they are of now and their form."""
    if not isinstance(data.prepare, Normalized):
        return data
    before = data.prepare.names or {key: key for key in data.prepare.forms}
    names = {key: found[name][0] for key, name in before.items() if name in found}
    forms = dict(found.values())
    return replace(data, prepare=replace(data.prepare, forms=forms, names=names), labeled=bool(forms))


def is_redirected(data: Dataset) -> bool:
    """Whether labels are read as those of other outputs, see `redirected`."""
    return isinstance(data.prepare, Normalized) and data.prepare.names is not None


def label_forms(data: Dataset) -> Mapping[str, LabelForm]:
    """The forms of a dataset's labels, by output; empty without labels, or before `fit_labels`."""
    return data.prepare.forms if isinstance(data.prepare, Normalized) else {}


def with_form(data: Dataset, output: str, form: LabelForm) -> Dataset:
    """The dataset with labels of an output in another form."""
    assert isinstance(data.prepare, Normalized)
    return replace(data, prepare=replace(data.prepare, forms={**data.prepare.forms, output: form}))


def with_given_labels(data: Dataset) -> Dataset:
    """The dataset, whose batches have the labels as they were given as well, for a loss of the user's own."""
    if not isinstance(data.prepare, Normalized):
        return data
    return replace(data, prepare=replace(data.prepare, keeps=True))


def only_given_labels(data: Dataset) -> Dataset:
    """The dataset with labels as they were given, which need not have a form that a metric knows."""
    for output, form in label_forms(data).items():
        data = with_form(data, output, replace(form, kind="other"))
    return data


def unnamed_output(data: Dataset) -> str:
    """The key of the labels without a name, see `Normalized`."""
    if not isinstance(data.prepare, Normalized):
        return ""
    unnamed = data.prepare.unnamed
    return unnamed if data.prepare.names is None else data.prepare.names.get(unnamed, unnamed)


def label_form(data: Dataset, key: str) -> LabelForm:
    """The form of labels by the key that the data has for them: "" if they have no name."""
    return label_forms(data)[key or unnamed_output(data)]

"""The forms that labels come in, and how each becomes the one form that metrics and losses take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.data.batch import IGNORED, Batch, Labels
from onnxprune.data.dataset import Dataset, Prepare
from onnxprune.data.source import Arrays
from onnxprune.errors import DataError

# The label of ignored pixels in image files.
VOID = 255
# The class of rows without a box.
UNUSED = -1
# Rounding of relative numbers in label files.
SLACK = 0.01

KINDS = {
    "classes": "class numbers",
    "positions": "class numbers by position, for example masks",
    "binary": "0 or 1",
    "multi-label": "0 or 1 for each class",
    "targets": "numbers of the output's shape",
    "pairs": "a score for each pair of samples",
    "boxes": "boxes [class, center x, center y, width, height]",
    "text": "texts",
    "other": "anything, for MODULE:FUNCTION",
}
"""Kinds of labels, in words."""


# Kinds of labels that a loss can be of.
TRAINED = ("classes", "positions", "binary", "multi-label", "targets")

# Kinds of labels that are class numbers, or hold them.
NUMBERED = ("classes", "positions", "binary", "boxes")


@dataclass(frozen=True)
class LabelForm:
    """How the labels of one output are to be read.

    `kind`: one of `KINDS`. `shape`: of one sample's normalized labels. `classes`: their number, along `axis` of the
    output; without an axis the output consists of class numbers. `one_hot`: the axis of labels with a single 1 for each
    sample or position. `high`: the number that is 1 in binary labels. `threshold`: outputs above it mean 1. `span`: the
    range of targets: 255 for 8-bit pixels, 2 for -1 to 1, 1 for 0 to 1, else that of the targets seen. `offset`: added
    to class numbers that are not ignored.
    """

    kind: str
    data: str
    shape: tuple[int, ...] | None = None
    classes: int = 0
    axis: int | None = 1
    one_hot: int | None = None
    high: int = 1
    threshold: float = 0.0
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
    def group(self) -> int:
        """How many consecutive samples are scored together."""
        return 2 if self.kind == "pairs" else 1

    def normalize(self, labels: np.ndarray, numbers: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Labels of this form, samples along the first axis, in the form of their kind; `numbers`: of the samples.

        classes: int64 (N,); positions: int64 (N, ...) with `IGNORED`; binary and multi-label: bool of the output's
        shape; targets, pairs and boxes: float32; text: objects; other: unchanged.

        Raises:
            DataError: they are not of this form.
        """
        if self.offset:
            labels = shifted(labels, self.offset, self.kind)
        return _NORMALIZE[self.kind](self, labels, numbers)

    def shaped(self, labels: np.ndarray) -> np.ndarray:
        return labels if self.shape is None else labels.reshape(len(labels), *self.shape)


Numbers = Sequence[int] | np.ndarray | None


def shifted(labels: np.ndarray, offset: int, kind: str) -> np.ndarray:
    """Labels with an offset added to class numbers: not to ignored pixels, nor to boxes but for their class."""
    if labels.dtype.kind in "iub":
        labels = labels.astype(np.int64)
    if kind == "boxes":
        moved = labels.copy()
        moved[..., 0] += np.where(labels[..., 0] != UNUSED, offset, 0)
        return moved
    moves = (labels >= 0) & (labels != VOID) if kind == "positions" else True
    return labels + np.where(moves, offset, 0).astype(labels.dtype)


def _classes(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    if form.one_hot is not None:
        ones = np.moveaxis(labels, form.one_hot, -1)
        wrong = ((ones != 0) & (ones != 1)).any(-1) | (ones.sum(-1) != 1)
        if wrong.any():
            raise DataError(
                f"the labels of {form.data} are one-hot in some samples, but {_where(wrong, numbers)} has not "
                "exactly one 1: give class numbers, or name a --metric for several classes, such as f1"
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
    if form.kind == "positions":
        ignored = (found < 0) | (found == VOID) & wrong
        found, wrong = np.where(ignored, IGNORED, found), wrong & ~ignored
    if wrong.any():
        raise DataError(
            f"the labels of {form.data} have the class {_first(found, wrong)}, at {_where(wrong, numbers)}, but the "
            f"output has {form.classes} classes, 0 to {form.classes - 1}: give classes in that range, or shift them "
            "by --label-offset"
        )
    return found


def _zeros_and_ones(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    wrong = (labels != 0) & (labels != form.high)
    if wrong.any():
        raise DataError(
            f"the labels of {form.data} are 0 or {form.high} in some samples, but "
            f"{_first(labels, wrong)} at {_where(wrong, numbers)}: give only 0 and {form.high}, or --metric mse if "
            "they are targets"
        )
    return form.shaped(labels != 0)


def _floats(form: LabelForm, labels: np.ndarray, numbers: Numbers) -> np.ndarray:
    found = form.shaped(labels.astype(np.float32))
    if not np.isfinite(found).all():
        wrong = ~np.isfinite(found)
        raise DataError(
            f"the labels of {form.data} have {_first(found, wrong)} at {_where(wrong, numbers)}: give finite numbers"
        )
    return found


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
    """Prepares batches whose labels are in the form of their kind; `forms`: by output, as in `Batch.labels`."""

    prepare: Prepare
    forms: Mapping[str, LabelForm]

    @property
    def label_names(self) -> Collection[str]:
        """See `Prepare`."""
        return self.prepare.label_names

    def labels_of(self, arrays: Arrays) -> Labels:
        """See `Prepare`."""
        return self._normalized(self.prepare.labels_of(arrays))

    def __call__(self, arrays: Arrays) -> Batch:
        batch = self.prepare(arrays)
        return replace(batch, labels=self._normalized(batch.labels))

    def _normalized(self, labels: Labels) -> Labels:
        return {key: self.forms[key].normalize(array) for key, array in labels.items()}


@dataclass(frozen=True)
class Redirected(Normalized):
    """Normalized labels that are read as those of other outputs; those without a new name in `names` are left out."""

    names: Mapping[str, str]

    def _normalized(self, labels: Labels) -> Labels:
        return {
            self.names[key]: self.forms[self.names[key]].normalize(array)
            for key, array in labels.items()
            if key in self.names
        }


def redirected(data: Dataset, found: Mapping[str, tuple[str, LabelForm]]) -> Dataset:
    """The dataset with the labels in `found`: by output, as before, the output that they are of now and their form."""
    forms = dict(found.values())
    names = {key: name for key, (name, _) in found.items()}
    return replace(data, prepare=Redirected(data.prepare, forms, names), labeled=bool(forms))


def label_forms(data: Dataset) -> Mapping[str, LabelForm]:
    """The forms of a dataset's labels, by output; empty without labels, or before `fit_labels`."""
    return data.prepare.forms if isinstance(data.prepare, Normalized) else {}

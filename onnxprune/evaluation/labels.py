"""The forms that labels come in, and how each becomes the one form that metrics and losses take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset, class_axis
from onnxprune.data.source import Arrays
from onnxprune.errors import DataError

# Positions with this label count neither in losses nor in metrics, as in torch.
IGNORED = -100
# The label of ignored pixels in image files.
VOID = 255
# Targets of which some are larger are not in 0 to 1 or -1 to 1, but 8-bit pixels or of another range.
LARGEST_UNIT = 2.0
# The values of a box: class, center x, center y, width, height.
BOX = 5
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


@dataclass(frozen=True)
class LabelForm:
    """How the labels of one output are to be read.

    `kind`: one of `KINDS`. `shape`: of one sample's normalized labels. `classes`: their number, along `axis` of the
    output; without an axis the output consists of class numbers. `one_hot`: the axis of labels with a single 1 for each
    sample or position. `high`: the number that is 1 in binary labels. `threshold`: outputs above it mean 1. `span`: the
    range of targets: 255 for 8-bit pixels, 2 for -1 to 1, 1 for 0 to 1, else that of the targets seen.
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
        return _NORMALIZE[self.kind](self, labels, numbers)

    def shaped(self, labels: np.ndarray) -> np.ndarray:
        return labels if self.shape is None else labels.reshape(len(labels), *self.shape)


Numbers = Sequence[int] | np.ndarray | None


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


def find_form(
    labels: np.ndarray, output: Any, data: str, wanted: Collection[str] = (), numbers: Numbers = None
) -> LabelForm:
    """The form of some labels of `data`, samples along the first axis, with an output for some samples.

    `wanted`: the kinds that the named metrics take, which decide where labels can be read in several ways; only for
    them are numbers (N,) taken for the scores of pairs, and labels that do not fit for "other".

    Raises:
        DataError: they are of no form that fits the output, or classes are out of range.
    """
    try:
        chosen = _likely(np.asarray(labels), output, data, wanted)
        chosen.normalize(np.asarray(labels), numbers)
    except DataError:
        if "other" not in wanted:
            raise
        return LabelForm("other", data)
    return chosen


def _likely(labels: np.ndarray, output: Any, data: str, wanted: Collection[str]) -> LabelForm:
    forms = [form for form in _possible(labels, output, data) if form.kind != "pairs" or "pairs" in wanted]
    chosen = next((form for form in forms if form.kind in wanted), None) or next(iter(forms), None)
    if chosen is None:
        raise DataError(_misfit(labels, output, data))
    return chosen


def _possible(labels: np.ndarray, output: Any, data: str) -> Iterator[LabelForm]:
    """The forms that labels may have, the likely ones first."""
    if labels.dtype.kind in "USO":
        if all(isinstance(text, str | bytes) for text in labels.ravel()):
            yield LabelForm("text", data)
        return
    if labels.dtype.kind not in "biuf" or not labels.ndim or not labels.size:
        return
    if _are_boxes(labels, output):
        yield LabelForm("boxes", data, classes=raw_classes(output))
    if not isinstance(output, np.ndarray) or output.dtype.kind not in "biuf" or not output.ndim:
        return
    shape = (len(output), *labels.shape[1:])
    if shape == output.shape and labels.dtype.kind in "iu" and output.dtype.kind in "iu":
        yield LabelForm("classes" if labels.ndim == 1 else "positions", data, axis=None)
    yield from _of_one_unit(labels, output, data)
    if shape == output.shape:
        yield from _by_class(labels, output, data)
    if not (labels.dtype.kind == "f" and (labels != np.round(labels)).any()):
        yield from _class_numbers(labels, output, data)
    if np.prod(shape) == output.size:
        yield LabelForm(
            "targets", data, None if shape == output.shape else output.shape[1:], span=_span(labels)
        )
    if output.ndim == 2 and output.shape[1] > 1 and np.prod(shape[1:]) == 1:
        yield LabelForm("pairs", data, ())


def _of_one_unit(labels: np.ndarray, output: np.ndarray, data: str) -> Iterator[LabelForm]:
    """0 and 1 for outputs of one unit: (N,), (N, 1) or (N, 1, H, W), and 0 and 255 of masks."""
    single = output.ndim == 1 or output.shape[1] == 1 or (output.ndim > 2 and output.shape[-1] == 1)
    if not single or np.prod(labels.shape[1:]) != np.prod(output.shape[1:]):
        return
    values = set(np.unique(labels).tolist())
    if output.ndim > 2 and labels.dtype.kind in "iu" and {1, VOID} <= values <= {0, 1, VOID}:
        raise DataError(
            f"the masks of {data} have {VOID} beside 0 and 1, which an output of one unit cannot ignore: give 0 and 1, "
            "or floats if they are targets"
        )
    if values <= {0, 1} or (values == {0, VOID} and labels.dtype.kind in "iu" and output.ndim > 2):
        yield LabelForm(
            "binary", data, output.shape[1:], high=int(max(values)) or 1, threshold=_threshold(output)
        )


def _by_class(labels: np.ndarray, output: np.ndarray, data: str) -> Iterator[LabelForm]:
    """0 and 1 of the output's shape, for an output of several units: one-hot or multi-label."""
    if not set(np.unique(labels).tolist()) <= {0, 1}:
        return
    if output.ndim < 2 or (labels.dtype.kind == "f" and output.ndim > 2):
        return
    for axis in (1, output.ndim - 1) if output.ndim > 2 else (1,):
        if output.shape[axis] > 1 and (labels.sum(axis) == 1).all():
            kind = "classes" if output.ndim == 2 else "positions"
            yield LabelForm(kind, data, None, output.shape[axis], axis, one_hot=axis)
    if output.shape[1] > 1:
        yield LabelForm(
            "multi-label", data, classes=output.shape[1], threshold=_threshold(output), shape=output.shape[1:]
        )


def _class_numbers(labels: np.ndarray, output: np.ndarray, data: str) -> Iterator[LabelForm]:
    count = len(output)
    shapes = [labels.shape[1:], *(_without(labels.shape[1:], axis) for axis in (0, labels.ndim - 2))]
    for shape in dict.fromkeys(shapes):
        axis = class_axis(output.shape, (count, *shape))
        if axis is None or not axis or output.shape[axis] < 2:
            continue
        classes = output.shape[axis]
        found = labels.reshape(len(labels), *shape)
        kind = "positions" if shape else "classes"
        if kind == "positions" and classes == 2 and set(np.unique(found).tolist()) == {0, VOID}:
            raise DataError(
                f"the masks of {data} are 0 and {VOID}, and {VOID} may mean class 1 or ignored pixels: give 0 and 1"
            )
        yield LabelForm(kind, data, shape, classes, axis)
        return


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape without an axis of size 1."""
    return shape[:axis] + shape[axis + 1 :] if 0 <= axis < len(shape) and shape[axis] == 1 else shape


def _are_boxes(labels: np.ndarray, output: Any) -> bool:
    """Float labels (N, M, 5): classes, -1 in unused rows, and relative centers and sizes."""
    if labels.dtype.kind != "f" or labels.ndim != 3 or labels.shape[-1] != BOX:
        return False
    if isinstance(output, np.ndarray) and output.shape[1:] == labels.shape[1:]:
        return False
    used = labels[labels[..., 0] != UNUSED]
    return bool(
        (used[:, 0] == np.round(used[:, 0])).all()
        and ((used[:, 1:] >= -SLACK) & (used[:, 1:] <= 1 + SLACK)).all()
    )


def raw_classes(output: Any) -> int:
    """The number of classes C of a detector's output (N, 4 + C, A); 0 for other outputs."""
    shape = np.shape(output) if isinstance(output, np.ndarray) else ()
    return shape[1] - 4 if len(shape) == 3 and 4 < shape[1] < shape[2] else 0


def _threshold(output: np.ndarray) -> float:
    """Probabilities have their middle at 0.5, logits at 0."""
    return 0.5 if output.size and output.min() >= 0 and output.max() <= 1 else 0.0


def _span(labels: np.ndarray) -> float:
    low, high = float(labels.min()), float(labels.max())
    if labels.dtype == np.uint8 or (low >= 0 and high > LARGEST_UNIT):
        return 255.0
    if low < -LARGEST_UNIT or high > LARGEST_UNIT:
        return high - low
    return 2.0 if low < 0 else 1.0


def _misfit(labels: np.ndarray, output: Any, data: str) -> str:
    shape = list(output.shape) if isinstance(output, np.ndarray) else "of no single array"
    if labels.dtype.kind not in "biuf" or not labels.size:
        found = f"{labels.dtype} {list(labels.shape)}"
    else:
        found = f"{labels.dtype} {list(labels.shape)}, {float(labels.min()):g} to {float(labels.max()):g}"
    problem = f"the labels of {data} ({found}) do not fit the output {shape}"
    if isinstance(output, np.ndarray) and labels.ndim == output.ndim == 2 and labels.shape[1] > 1:
        few = "fewer" if labels.shape[1] < output.shape[1] else "more"
        return (
            f"{problem}: they have {few} classes ({labels.shape[1]}) than the output ({output.shape[1]}); give one "
            "column for each class of the output, or class numbers"
        )
    return f"{problem}: give integer classes, or float targets of the output's shape"


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

    prepare: Callable[[Arrays], Batch]
    forms: Mapping[str, LabelForm]

    def __call__(self, arrays: Arrays) -> Batch:
        batch = self.prepare(arrays)
        labels = {key: self.forms[key].normalize(array) for key, array in batch.labels.items()}
        return replace(batch, labels=labels)


def label_forms(data: Dataset) -> Mapping[str, LabelForm]:
    """The forms of a dataset's labels, by output; empty without labels, or before `fit_labels`."""
    return data.prepare.forms if isinstance(data.prepare, Normalized) else {}


def fit_labels(
    data: Dataset,
    some: Batch,
    outputs: Mapping[str, Any],
    wanted: Collection[str] = (),
    numbers: Numbers = None,
) -> Dataset:
    """The dataset with its labels in the form of their kind, which those of `some` show.

    `outputs`: for some samples, by name, in the order of the graph; `numbers`: of the samples of `some`.

    Raises:
        DataError: labels do not fit, or belong to no output.
    """
    first = next(iter(outputs))
    forms = {}
    for key, labels in some.labels.items():
        if key and key not in outputs:
            raise DataError(
                f"{data.name} has labels of {key!r}, which is no output: give one of {', '.join(outputs)}"
            )
        forms[key] = find_form(labels, outputs[key or first], data.name, wanted, numbers)
    return replace(data, prepare=Normalized(data.prepare, forms)) if forms else data

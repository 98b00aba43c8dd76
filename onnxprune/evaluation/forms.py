"""Which form the labels of a dataset have: a guess from some of them and the outputs of the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from onnxprune.data.dataset import class_axis
from onnxprune.data.finite import check_finite
from onnxprune.errors import DataError
from onnxprune.evaluation.labels import (
    IGNORED,
    SLACK,
    UNUSED,
    VOID,
    LabelForm,
    Numbers,
    are_distributions,
    shifted,
)
from onnxprune.model.endings import PRODUCTS

# Targets of which some are larger are not in 0 to 1 or -1 to 1, but 8-bit pixels or of another range.
LARGEST_UNIT = 2.0
# Operators whose results are from 0 to 1.
PROBABILITIES = ("Sigmoid", "HardSigmoid", "Softmax")
# The values of a box: class, center x, center y, width, height.
BOX = 5


def find_form(
    labels: np.ndarray,
    output: Any,
    data: str,
    wanted: Collection[str] = (),
    numbers: Numbers = None,
    offset: int = 0,
    end: str = "",
) -> LabelForm:
    """The form of some labels of `data`, samples along the first axis, with an output for some samples.

    `wanted`: the kinds that the named metrics take, which decide where labels can be read in several ways; only for
    them are numbers (N,) taken for the scores of pairs, and labels that do not fit for "other". `offset`: to be
    added to class numbers, not to labels of other forms. `end`: the operator that the output ends in; "" if it is not
    known.

    Raises:
        DataError: they are of no form that fits the output, or classes are out of range.
    """
    labels = np.asarray(labels)
    try:
        check_finite({"labels": labels}, data, numbers)
        chosen = _moved(labels, output, data, wanted, offset, end) if offset else None
        chosen = chosen or _likely(labels, output, data, wanted, end)
        chosen.normalize(labels, numbers)
    except DataError:
        if "other" not in wanted:
            raise
        return LabelForm("other", data)
    return chosen


def _moved(
    labels: np.ndarray, output: Any, data: str, wanted: Collection[str], offset: int, end: str
) -> LabelForm | None:
    """The form of class numbers after an offset was added; None if it makes none of them."""
    if labels.dtype.kind not in "biuf":
        return None
    kind = "boxes" if _are_boxes(labels, output) else "classes"
    form = _likely(shifted(labels, offset, kind), output, data, wanted, end)
    return replace(form, offset=offset) if form.numbered else None


def _likely(labels: np.ndarray, output: Any, data: str, wanted: Collection[str], end: str) -> LabelForm:
    forms = [
        form for form in _possible(labels, output, data, end) if form.kind != "pairs" or "pairs" in wanted
    ]
    chosen = next((form for form in forms if form.kind in wanted), None) or next(iter(forms), None)
    if chosen is None:
        raise DataError(_misfit(labels, output, data, end))
    return chosen


def _possible(labels: np.ndarray, output: Any, data: str, end: str) -> Iterator[LabelForm]:
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
    yield from _of_one_unit(labels, output, data, end)
    if shape == output.shape and output.ndim > 1:
        yield from _by_class(labels, output, data, end)
    if not (labels.dtype.kind == "f" and (labels != np.round(labels)).any()):
        yield from _class_numbers(labels, output, data, end)
    if (shape == output.shape or _same_order(shape, output.shape)) and not _beyond(labels, end):
        yield LabelForm(
            "targets", data, None if shape == output.shape else output.shape[1:], span=_span(labels)
        )
    if output.ndim == 2 and output.shape[1] > 1 and np.prod(shape[1:]) == 1:
        yield LabelForm("pairs", data, ())


def _of_one_unit(labels: np.ndarray, output: np.ndarray, data: str, end: str) -> Iterator[LabelForm]:
    """0 and 1 for outputs of one unit: (N,), (N, 1) or (N, 1, H, W); or -1 and 1, and 0 and 255 of masks."""
    single = output.ndim == 1 or output.shape[1] == 1 or (output.ndim > 2 and output.shape[-1] == 1)
    if not single or np.prod(labels.shape[1:]) != np.prod(output.shape[1:]):
        return
    pair = _pair(labels, output, end)
    if pair is not None:
        probable = _are_probabilities(output, end)
        yield LabelForm("binary", data, output.shape[1:], low=pair[0], high=pair[1], probabilities=probable)


def _pair(labels: np.ndarray, output: np.ndarray, end: str) -> tuple[int, int] | None:
    """The numbers that mean 0 and 1 in labels of yes or no, which may be ignored; None if they are none."""
    values = set(np.unique(labels).tolist()) - {IGNORED}
    if output.ndim <= 2 and values == {-1, 1} and end != "Tanh":
        return -1, 1
    if output.ndim > 2 and {1, VOID} <= values:
        values -= {VOID}
    if output.ndim > 2 and labels.dtype.kind in "iu":
        if -1 in values and 0 not in values:
            return None
        values = {value for value in values if value >= 0}
        if values == {0, VOID}:
            return 0, VOID
    return (0, 1) if values <= {0, 1} else None


def _by_class(labels: np.ndarray, output: np.ndarray, data: str, end: str) -> Iterator[LabelForm]:
    """Labels of the output's shape, for an output of several units: one-hot, multi-label, or probabilities."""
    axes = [axis for axis in dict.fromkeys((1, output.ndim - 1)) if output.shape[axis] > 1]
    kind = "classes" if output.ndim == 2 else "positions"
    probable = _are_probabilities(output, end)
    pair = _pair(labels, output, end) if output.shape[1] > 1 else None
    # Numbers for each pixel are targets, as of an autoencoder, unless the model has a probability for each.
    if pair is not None and (output.ndim == 2 or labels.dtype.kind != "f" or end == "Sigmoid"):
        low, high = pair
        several = LabelForm(
            "multi-label", data, output.shape[1:], output.shape[1], low=low, high=high, probabilities=probable
        )
    else:
        several = None
    if several is not None and end == "Sigmoid":
        yield several
    ones = set(np.unique(labels).tolist()) <= {0, 1}
    for axis in axes:
        classes, sums = output.shape[axis], _sums_to_one(output, axis, end)
        if ones and (labels.sum(axis) == 1).all():
            yield LabelForm(kind, data, None, classes, axis, one_hot=axis, probabilities=sums)
        elif (
            labels.dtype.kind == "f"
            and not ones
            and end != "Sigmoid"
            and are_distributions(labels, axis).all()
        ):
            yield LabelForm("soft", data, None, classes, axis, probabilities=sums)
    if several is not None and end != "Sigmoid":
        yield several


def _class_numbers(labels: np.ndarray, output: np.ndarray, data: str, end: str) -> Iterator[LabelForm]:
    count = len(output)
    shapes = [labels.shape[1:], *(_without(labels.shape[1:], axis) for axis in (0, labels.ndim - 2))]
    if (
        np.prod(labels.shape[1:]) == 1
        and output.ndim > 2
        and max(output.shape[1:]) == np.prod(output.shape[1:])
    ):
        # (N, C, 1, 1), as networks without a last Flatten have it.
        shapes.append((1,) * (output.ndim - 2))
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
        yield LabelForm(kind, data, shape, classes, axis, probabilities=_sums_to_one(output, axis, end))
        return


def _same_order(labels: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether numbers of one shape are in the order of the other: they differ by axes of size 1, or one is flat."""
    sides = [[side for side in shape[1:] if side != 1] for shape in (labels, output)]
    return sides[0] == sides[1] or (min(len(labels), len(output)) == 2 and np.prod(labels) == np.prod(output))


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


def _are_probabilities(output: np.ndarray, end: str) -> bool:
    """Whether an output of yes or no has probabilities and not logits, as its last operator or some of it tell."""
    if end in PROBABILITIES or end in PRODUCTS:
        return end in PROBABILITIES
    return bool(output.size and output.min() >= 0 and output.max() <= 1)


def _sums_to_one(output: np.ndarray, axis: int, end: str) -> bool:
    """Whether an output has probabilities of the classes and not logits."""
    if end == "Softmax" or end in PRODUCTS:
        return end == "Softmax"
    return bool(output.size and output.dtype.kind == "f" and are_distributions(output, axis).all())


def _beyond(labels: np.ndarray, end: str) -> bool:
    """Whether targets are of another range than the output, which ends in probabilities."""
    if end not in PROBABILITIES:
        return False
    most = 1 if labels.dtype.kind in "iu" else LARGEST_UNIT
    return bool(labels.max() > most or labels.min() < 1 - most)


def _span(labels: np.ndarray) -> float:
    low, high = float(labels.min()), float(labels.max())
    if labels.dtype == np.uint8 or (low >= 0 and high > LARGEST_UNIT):
        return 255.0
    if low < -LARGEST_UNIT or high > LARGEST_UNIT:
        return high - low
    return 2.0 if low < 0 else 1.0


def _misfit(labels: np.ndarray, output: Any, data: str, end: str) -> str:
    shape = list(output.shape) if isinstance(output, np.ndarray) else "of no single array"
    if labels.dtype.kind not in "biuf" or not labels.size:
        found = f"{labels.dtype} {list(labels.shape)}"
    else:
        found = f"{labels.dtype} {list(labels.shape)}, {float(labels.min()):g} to {float(labels.max()):g}"
    problem = f"the labels of {data} ({found}) do not fit the output {shape}"
    if _beyond_a_fit(labels, output, end):
        return (
            f"{problem}, which ends in {end} and is from 0 to 1: give 0 and 1 (class numbers 1 and 2 become them by "
            "--label-offset -1), or targets from 0 to 1 (pixels divided by 255)"
        )
    if isinstance(output, np.ndarray) and labels.ndim == output.ndim == 2 and labels.shape[1] > 1:
        few = "fewer" if labels.shape[1] < output.shape[1] else "more"
        return (
            f"{problem}: they have {few} classes ({labels.shape[1]}) than the output ({output.shape[1]}); give one "
            "column for each class of the output, or class numbers"
        )
    return f"{problem}: give integer classes, or float targets of the output's shape"


def _beyond_a_fit(labels: np.ndarray, output: Any, end: str) -> bool:
    """Whether nothing but the range of the labels is wrong."""
    fits = isinstance(output, np.ndarray) and _same_order((len(output), *labels.shape[1:]), output.shape)
    return fits and labels.dtype.kind in "biuf" and bool(labels.size) and _beyond(labels, end)

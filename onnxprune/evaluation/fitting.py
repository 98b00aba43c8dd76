"""Which outputs the labels of a dataset belong to, each in the form that fits its output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from onnxprune.data.batch import Batch, Labels
from onnxprune.data.dataset import Dataset, class_names
from onnxprune.errors import DataError
from onnxprune.evaluation.forms import find_form
from onnxprune.evaluation.labels import KINDS, LabelForm, Normalized, Numbers


def fit_labels(
    data: Dataset,
    some: Batch,
    outputs: Mapping[str, Any],
    wanted: Collection[str] = (),
    numbers: Numbers = None,
    ends: Mapping[str, str] | None = None,
    asked: str | None = None,
    by_sample: Collection[str] | None = None,
    own_loss: bool = False,
) -> Dataset:
    """The dataset with its labels in the form of their kind, which those of `some` show.

    `outputs`: for some samples, by name, in the order of the graph; `numbers`: of the samples of `some`; `ends`: the
    operator that each output ends in, see `last_operators`; `asked`: the output of the labels without a name, see
    `owner`; `by_sample`: the outputs with a row for each sample, by default all; `own_loss`: labels may have names that
    are no outputs.

    Raises:
        DataError: labels do not fit, or belong to no output, or it is not clear to which.
    """
    first = next(iter(outputs))
    for key in some.labels:
        if key and key not in outputs:
            if own_loss:
                continue
            raise DataError(
                f"{data.name} has labels of {key!r}, which is no output: give one of {', '.join(outputs)}"
            )
    unnamed = first
    if "" in some.labels:
        rows = {name: output for name, output in outputs.items() if by_sample is None or name in by_sample}
        unnamed = owner(data, some.labels, outputs if asked else rows, wanted, numbers, asked, ends) or first
    if "" in some.labels and unnamed in some.labels:
        raise DataError(
            f"{data.name} has labels of {unnamed!r} twice, as 'labels' and as 'labels.{unnamed}': leave one"
        )
    # "" is the first output.
    unnamed = "" if unnamed == first else unnamed
    forms = {}
    for given, labels in some.labels.items():
        key = given or unnamed
        if key and key not in outputs:
            forms[key] = LabelForm("other", data.name)
            continue
        end = (ends or {}).get(key or first, "")
        forms[key] = find_form(
            labels, outputs[key or first], data.name, wanted, numbers, data.label_offset, end
        )
    # The first metric, that of the first output, is the one that choices are made by.
    forms = {key: forms[key] for key in dict.fromkeys(("", *outputs, *forms)) if key in forms}
    if data.label_offset and forms and not any(form.offset for form in forms.values()):
        form = next(iter(forms.values()))
        raise DataError(
            f"--label-offset is for class numbers, but the labels of {data.name} are "
            f"{KINDS[form.kind] if form.one_hot is None else 'one-hot'}: leave it out"
        )
    _check_names(data, forms.get(unnamed))
    return replace(data, prepare=Normalized(data.prepare, forms, unnamed=unnamed)) if forms else data


def owner(
    data: Dataset,
    labels: Labels,
    outputs: Mapping[str, Any],
    wanted: Collection[str],
    numbers: Numbers,
    asked: str | None,
    ends: Mapping[str, str] | None = None,
) -> str | None:
    """The output that the labels without a name belong to: by shape, by metric, by the number of named classes.

    None where no single one says it: the first one then.

    Raises:
        DataError: they fit several outputs as well, or `asked` is none.
    """
    if asked is not None and asked not in outputs:
        raise DataError(f"--output {asked} is no output of the model: give one of {', '.join(outputs)}")
    if asked is not None:
        return asked
    found = {}
    for name, output in outputs.items():
        if name not in labels:
            with suppress(DataError):
                end = (ends or {}).get(name, "")
                found[name] = find_form(
                    labels[""], output, data.name, wanted, numbers, data.label_offset, end
                )
    kinds = {form.kind for form in found.values()}
    # Boxes and texts are not of one output, and what a function of the user takes is not known.
    if kinds <= {"boxes", "text", "other"}:
        return None
    classes = len(class_names(data))
    preferences: tuple[Callable[[str], bool], ...] = (
        lambda name: found[name].kind != "other",
        lambda name: found[name].kind in wanted,
        lambda name: classes > 0 and classes + found[name].offset == max(found[name].classes, 2),
        # Class numbers that the model computes itself come with what they are computed from.
        lambda name: found[name].trains,
        lambda name: kinds == {"targets"} and labels[""].shape[1:] == outputs[name].shape[1:],
    )
    left = list(found)
    for preferred in preferences:
        left = [name for name in left if preferred(name)] or left
    if len(left) > 1:
        shapes = " and ".join(f"{name} {['N', *outputs[name].shape[1:]]}".replace("'", "") for name in left)
        raise DataError(
            f"the labels of {data.name} fit several outputs, {shapes}: say to which they belong, by --output {left[0]} "
            f"or --output {left[-1]}, or by the name of the array, 'labels.{left[-1]}'"
        )
    return left[0]


def _check_names(data: Dataset, form: LabelForm | None) -> None:
    """Refuse names of classes that are not as many as the outputs: their numbers would be those of other classes."""
    names = class_names(data)
    if not names or form is None or form.kind not in ("classes", "binary") or form.axis is None:
        return
    classes = 2 if form.kind == "binary" else form.classes
    if len(names) + form.offset != classes:
        raise DataError(
            f"{data.name} has {len(names)} classes ({names[0]} to {names[-1]}), but the output has {classes}: name "
            "classes by their numbers in the model, add those that are missing (as folders, even empty ones), or give "
            "--label-offset"
        )

"""The classes that two models give to the same samples: how many are right by class, and which ones changed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.data.batch import IGNORED, Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.images.thumbnails import thumbnails
from onnxprune.evaluation.labels import LabelForm

# Changed samples that are kept: those that were right, those that became right, and those wrong in another way.
KEPT = {"lost": 12, "gained": 6, "other": 6}
# Rows (samples, right by the baseline, right by the pruned model) of more classes are not kept.
MOST_CLASSES = 1000


class Answers:
    """Running counts of the answers to the labels of one output, which are class numbers, one for each sample."""

    def __init__(self, key: str, output: str, form: LabelForm, names: Sequence[str]) -> None:
        self._key, self._output, self._form = key, output, form
        self._place, self._fits = names.index(output), True
        self._counts = np.zeros((0, 3), np.int64)
        self._changed = dict.fromkeys(KEPT, 0)
        self._kept: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KEPT}
        self._samples = 0

    @classmethod
    def of(cls, forms: Mapping[str, LabelForm], names: Sequence[str]) -> Answers | None:
        """Those to the first labels of classes; None if there are none. `names`: of the model's outputs."""
        found = ((key, form) for key, form in forms.items() if form.kind == "classes")
        return next((cls(key, key or names[0], form, names) for key, form in found), None)

    def add(self, results: Sequence[Sequence[Any]], batch: Batch) -> None:
        """Count the outputs of both models for a batch, in the order of the model."""
        labels = batch.labels[self._key]
        old, new = (self._predicted(outputs, len(batch)) for outputs in results)
        if old is None or new is None:
            self._fits = False
            return
        counted = labels != IGNORED
        self._count(labels[counted], old[counted], new[counted])
        for place in np.flatnonzero(counted & (old != new)):
            label, before, after = int(labels[place]), int(old[place]), int(new[place])
            kind = "lost" if before == label else "gained" if after == label else "other"
            self._changed[kind] += 1
            if len(self._kept[kind]) < KEPT[kind]:
                sample = {"place": self._samples + int(place), "label": label}
                self._kept[kind].append(sample | {"baseline": before, "pruned": after})
        self._samples += len(batch)

    def _predicted(self, outputs: Sequence[Any], samples: int) -> np.ndarray | None:
        """A class for each sample; None if the output is something else, which a user's own metric may score."""
        output, axis = outputs[self._place], self._form.axis
        if not isinstance(output, np.ndarray) or (axis is not None and output.ndim <= axis):
            return None
        classes = output if axis is None else output.argmax(axis)
        return classes.reshape(samples) if classes.size == samples else None

    def _count(self, labels: np.ndarray, old: np.ndarray, new: np.ndarray) -> None:
        size = max(len(self._counts), int(labels.max(initial=-1)) + 1)
        parts = (labels, labels[old == labels], labels[new == labels])
        added = np.stack([np.bincount(part, minlength=size) for part in parts], 1)
        added[: len(self._counts)] += self._counts
        self._counts = added

    def result(self, data: Dataset) -> dict[str, Any] | None:
        """The counts in JSON types, with the kept samples of `data`, by number, and their pictures in Base64.

        None if the output had no classes.

        `classes`: rows (class, samples, right by the baseline, right by the pruned model).
        """
        if not self._fits:
            return None
        seen = np.flatnonzero(self._counts[:, 0])
        classes = [[int(each), *self._counts[each].tolist()] for each in seen]
        kept = sorted((each for some in self._kept.values() for each in some), key=lambda each: each["place"])
        places, numbers = [each.pop("place") for each in kept], data.numbers()
        for each, place, png in zip(kept, places, thumbnails(data, places), strict=True):
            each["sample"] = int(numbers[place])
            if png is not None:
                each["picture"] = base64.b64encode(png).decode()
        return {
            "output": self._output,
            "classes": classes if len(classes) <= MOST_CLASSES else [],
            "changed": self._changed,
            "shown": kept,
        }


def without_pictures(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """`Evaluation.to_dict()` without the pictures of samples."""
    answers = evaluation.get("answers")
    if not answers:
        return dict(evaluation)
    shown = [{key: value for key, value in each.items() if key != "picture"} for each in answers["shown"]]
    return {**evaluation, "answers": {**answers, "shown": shown}}

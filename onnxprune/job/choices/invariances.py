"""The changes of images that the input model does not mind: what it was trained to be invariant to is safe to train on.

Mirrored digits are wrong, mirrored cats are not. The model itself knows which data it is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnxruntime as ort

from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.images.augment import NONE, Augmentation
from onnxprune.data.images.reading import image_input, read_augmented
from onnxprune.data.specs import InputSpec
from onnxprune.errors import OnnxPruneError
from onnxprune.evaluation.labels import label_forms
from onnxprune.evaluation.runs import run_batch

SAMPLES = 400
BATCH_SAMPLES = 64
# A change is safe where the model is wrong for so much more of the samples at most.
MOST_WORSE = 0.03
# Without labels, what the model takes an image for may change for so many of them.
MOST_CHANGED = 0.1
# Crops move by up to this share of the side.
MOVED = 1 / 8


def safe_augmentation(session: ort.InferenceSession, data: Dataset, specs: list[InputSpec]) -> str:
    """The text of the augmentation that the model is indifferent to, "none" where nothing can be said.

    It is tried on images of one class each: that of the labels, or without labels what the model takes them for.
    """
    forms = label_forms(data)
    if data.source.sequential or data.axes.whole:
        return NONE
    key, form = next(iter(forms.items()), ("", None))
    if form is not None and (form.kind != "classes" or form.axis != 1):
        return NONE
    some = data.spread(SAMPLES)
    try:
        first = some.take(slice(0, 1)).read()
        spec, axis = image_input(first, specs)
        # The height: colors are before it or behind the width.
        side = first.inputs[spec.name].shape[2 if axis == 1 else 1]
        plain = _answers(session, some.batches(BATCH_SAMPLES), key)
        if plain is None:
            return NONE
        classes, truth = plain
        least = np.mean(classes == truth) - (MOST_CHANGED if form is None else MOST_WORSE)
        found = []
        for text in ("flip", f"crop:{max(1, round(MOVED * side))}"):
            changed = _answers(session, _augmented(some, specs, Augmentation.parse(text)), key)
            if changed is not None and np.mean(changed[0] == truth) >= least:
                found.append(text)
    except OnnxPruneError:
        # No image input, or no torchvision: the model is trained on the images as they are.
        return NONE
    return ",".join(found) or NONE


def _answers(
    session: ort.InferenceSession, batches: Iterable[Batch], key: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """The class that the model finds in each sample, and the class of its label, or without labels the same.

    None where the output is no row of classes.
    """
    names = [output.name for output in session.get_outputs()]
    found, labels = [], []
    for batch in batches:
        output = run_batch(session, batch)[names.index(key) if key else 0]
        rows = isinstance(output, np.ndarray) and output.dtype.kind == "f" and output.ndim > 1
        if not rows or output.shape[1] < 2 or output.size != len(batch) * output.shape[1]:
            return None
        found.append(output.argmax(1).reshape(-1))
        labels.append(batch.labels[key].reshape(-1) if batch.labels else found[-1])
    return np.concatenate(found), np.concatenate(labels)


def _augmented(data: Dataset, specs: list[InputSpec], augmentation: Augmentation) -> Iterator[Batch]:
    numbers = data.numbers()
    for start in range(0, len(numbers), BATCH_SAMPLES):
        part = numbers[start : start + BATCH_SAMPLES]
        changed = read_augmented(data, part, augmentation, [int(number) for number in part], specs)
        yield from changed.runs(BATCH_SAMPLES)

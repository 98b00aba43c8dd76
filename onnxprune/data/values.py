"""Samples as users' datasets give them, as arrays by name: mappings, tuples, tensors and images."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from onnxprune.data.dataset import LABELS, label_name
from onnxprune.data.images.transforms import Transform
from onnxprune.data.labels import LABEL_NAMES
from onnxprune.data.request import Request
from onnxprune.data.source import Arrays
from onnxprune.data.stream import to_array
from onnxprune.errors import DataError


def found_labels(names: Collection[str], inputs: Collection[str]) -> dict[str, str]:
    """The names of label arrays -> "labels" or "labels.OUTPUT", among names of which some are inputs."""
    by_output = {name: name for name in names if name not in inputs and name.startswith(f"{LABELS}.")}
    others = {name.strip().lower(): name for name in sorted(names, reverse=True) if name not in inputs}
    plain = next((others[name] for name in LABEL_NAMES if name in others), None)
    return ({} if plain is None else {plain: LABELS}) | by_output


def sample_arrays(sample: Any, name: str, request: Request) -> Arrays:
    """A sample or a batch of a dataset as arrays.

    `sample`: a mapping by name; or a tuple of the inputs in the model's order, and labels (of all outputs, by name, if
    they are a mapping); or the only input. Images of PIL are transformed.

    Raises:
        DataError: it is none of them, or there are too few or too many values.
    """
    specs = request.specs
    if isinstance(sample, Mapping):
        values = dict(sample)
        inputs = {spec.name for spec in specs}
        labels = found_labels(values, inputs)
        others = [key for key in values if key not in labels]
        if len(specs) == 1 and len(others) == 1:
            # There is only one thing that it can be.
            values[specs[0].name] = values.pop(others[0])
    elif isinstance(sample, tuple) or (isinstance(sample, list) and not _is_row(sample)):
        if len(sample) not in (len(specs), len(specs) + 1):
            raise DataError(
                f"samples of {name} have {len(sample)} values, the model has {len(specs)} inputs: give the inputs in "
                "the model's order and then the labels, or a dict by name"
            )
        values = {spec.name: value for spec, value in zip(specs, sample, strict=False)}
        if len(sample) > len(specs):
            truth = sample[-1]
            given = truth if isinstance(truth, Mapping) else {"": truth}
            values |= {label_name(str(output)): labels for output, labels in given.items()}
    else:
        if len(specs) != 1:
            raise DataError(
                f"samples of {name} are one value, the model has {len(specs)} inputs: give tuples or dicts"
            )
        values = {specs[0].name: sample}
    return {key: _value(value, key, name, request) for key, value in values.items()}


def _is_row(sample: Any) -> bool:
    """Whether a list is numbers, thus one input and not several."""
    return all(isinstance(value, int | float) for value in sample)


def _value(value: Any, key: str, name: str, request: Request) -> np.ndarray:
    spec = next((spec for spec in request.row_specs if spec.name == key), None)
    if spec is not None and hasattr(value, "getbands"):
        transform = (
            Transform.default(spec) if request.transform is None else Transform.parse(request.transform, spec)
        )
        return transform.values(transform.geometry(value)[None])[0]
    return to_array(value, key, name)

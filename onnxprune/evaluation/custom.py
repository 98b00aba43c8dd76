"""Users' own metrics and functions of outputs, given as MODULE:FUNCTION."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from onnxprune.data.named import named
from onnxprune.errors import DataError, OnnxPruneError, SettingError, first_line
from onnxprune.evaluation.labels import KINDS
from onnxprune.evaluation.metrics import Metric
from onnxprune.evaluation.predictions import Predictions
from onnxprune.system.packages import import_torchvision


def load(flag: str, text: str, gives: str) -> Any:
    """What MODULE:FUNCTION names.

    Raises:
        SettingError: there is nothing of that name.
    """
    module, _, name = text.partition(":")
    try:
        try:
            return named(module, name)
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
        # torchmetrics imports a torchvision that does not fit torch.
        import_torchvision(flag)
        return named(module, name)
    except Exception as error:
        raise SettingError(
            f"{flag} {text}: {first_line(error)}; give {gives} in a module of this folder or an installed one"
        ) from None


def custom_metric(text: str) -> Metric:
    """The metric MODULE:FUNCTION: a function of (outputs, labels) that returns a score for each sample of a batch.

    `outputs`: {name: array}, or what --postprocess made of it; the value is the mean score. Instead of a function, a
    class or an object with `update(outputs, labels)` and `compute()`; those of torchmetrics get tensors. Larger values
    are better unless the attribute `higher_is_better` is False.

    Raises:
        SettingError: there is no such function or object.
    """
    gives = "a function of (outputs, labels) or a class with update and compute"
    found = load("--metric", text, gives)
    better = getattr(found, "higher_is_better", None) is not False
    name = text.partition(":")[2]
    if hasattr(found, "update") and hasattr(found, "compute"):
        make = partial(_state, text, found)
        return Metric(name, tuple(KINDS), _no_records, higher_is_better=better, state=make)
    if not callable(found):
        raise SettingError(f"--metric {text} is not a function: give {gives}")
    return Metric(name, tuple(KINDS), partial(_scores, text, found), higher_is_better=better)


def _scores(text: str, function: Callable[..., Any], found: Predictions) -> np.ndarray:
    scores = call(f"--metric {text}", function, found.given(), found.labels)
    try:
        array = np.asarray(scores, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (len(found),):
        what = (
            f"{type(scores).__name__} of shape {list(np.shape(array))}" if array.size else repr(scores)[:60]
        )
        raise DataError(
            f"--metric {text} returned {what} for {len(found)} samples: return one number for each sample, or give a "
            "class with update and compute"
        )
    return array


def _no_records(found: Predictions) -> np.ndarray:
    raise AssertionError("metrics with a state keep no records")


class _State:
    """An object with `update` and `compute`."""

    def __init__(self, text: str, state: Any) -> None:
        self._flag, self._state = f"--metric {text}", state
        self._tensors = type(state).__module__.startswith("torchmetrics") or hasattr(state, "register_buffer")

    def update(self, found: Predictions) -> None:
        if not self._tensors:
            call(self._flag, self._state.update, found.given(), found.labels)
            return
        import torch

        values = (found.output, found.labels)
        tensors = [torch.from_numpy(each) if _is_numeric(each) else list(each) for each in values]
        call(self._flag, self._state.update, *tensors)

    def value(self) -> float:
        value = call(self._flag, self._state.compute)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise DataError(
                f"{self._flag}: compute returned a {type(value).__name__}: return one number"
            ) from None

    def merge(self, other: _State) -> None:
        if not hasattr(self._state, "merge_state"):
            raise DataError(
                f"{self._flag} keeps a state that cannot be merged over processes: give a function of (outputs, "
                "labels) that returns a score for each sample, or define merge_state(other)"
            )
        call(self._flag, self._state.merge_state, other._state)


def _state(text: str, found: Any) -> _State:
    return _State(text, call(f"--metric {text}", found) if isinstance(found, type) else copy.deepcopy(found))


def _is_numeric(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype != object


def postprocessed(text: str, outputs: Mapping[str, Any], samples: int) -> Any:
    """What the function --postprocess MODULE:FUNCTION makes of the outputs {name: array} of some samples.

    Raises:
        SettingError: there is no such function.
        DataError: it fails, or makes another number of samples.
    """
    gives = "a function of the outputs {name: array}"
    function = load("--postprocess", text, gives)
    if not callable(function):
        raise SettingError(f"--postprocess {text} is not a function: give {gives}")
    made = call(f"--postprocess {text}", function, dict(outputs))
    if isinstance(made, tuple):
        made = list(made)
    if not isinstance(made, list | np.ndarray):
        raise DataError(
            f"--postprocess {text} returned a {type(made).__name__}: return an array or a list, one item for each "
            "sample"
        )
    if len(made) != samples:
        raise DataError(
            f"--postprocess {text} returned {len(made)} items for {samples} samples: return one for each sample"
        )
    return made


def call(flag: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a user's function.

    Raises:
        DataError: it fails.
    """
    try:
        return function(*arguments)
    except OnnxPruneError:
        raise
    except Exception as error:
        raise DataError(
            f"{flag} failed with {type(error).__name__}: {first_line(error)}; correct it, or choose another"
        ) from error

"""Metrics of a model's first output on labeled data: one entry of `METRICS` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.data.dataset import class_axis
from onnxprune.errors import DataError


@dataclass(frozen=True)
class Metric:
    """A metric: the mean of one score per label.

    `takes(labels)`: whether it is the metric for such labels. `scores(output, labels, data)`: an array of the labels'
    shape; it raises DataError if they do not fit the output. `fraction`: scores are 0 or 1 and their mean is an
    accuracy, which is shown as the error 1 - mean; otherwise the mean is an error. `title`: the name of what is shown.
    """

    title: str
    takes: Callable[[np.ndarray], bool]
    scores: Callable[[np.ndarray, np.ndarray, str], np.ndarray]
    fraction: bool

    def text(self, value: float) -> str:
        """A mean score as it is shown: as an error."""
        return f"{1 - value:.2%}" if self.fraction else f"{value:.4g}"

    def drop(self, baseline: float, pruned: float) -> float:
        """How much worse `pruned` is: accuracy points as a fraction, or the relative growth of the error."""
        if self.fraction:
            return baseline - pruned
        return (pruned - baseline) / baseline if baseline else float(pruned > 0)


def _correct(output: np.ndarray, labels: np.ndarray, data: str) -> np.ndarray:
    """Whether the arg-max is the label."""
    axis = class_axis(output.shape, labels.shape)
    if axis is None or labels.min() < 0 or labels.max() >= output.shape[axis]:
        raise DataError(_misfit(labels, output, data))
    return output.argmax(axis) == labels


def _squared_error(output: np.ndarray, labels: np.ndarray, data: str) -> np.ndarray:
    if labels.shape != output.shape and labels.size != output.size:
        raise DataError(_misfit(labels, output, data))
    return (output.astype(np.float64).reshape(labels.shape) - labels) ** 2


# The first that takes the labels is used.
METRICS = {
    "top-1": Metric("top-1 error", lambda labels: labels.dtype.kind != "f", _correct, fraction=True),
    "mse": Metric(
        "mean squared error", lambda labels: labels.dtype.kind == "f", _squared_error, fraction=False
    ),
}


@dataclass(frozen=True)
class Score:
    """The mean of a metric over samples; `name` is its key in `METRICS`."""

    name: str
    value: float
    samples: int

    @property
    def metric(self) -> Metric:
        return METRICS[self.name]


def score_text(score: Mapping[str, Any]) -> str:
    """A score in JSON types (with "name" and "value") as it is shown."""
    metric = METRICS.get(score["name"])
    return f"{score['value']:.4g}" if metric is None else metric.text(score["value"])


class RunningScore:
    """The sum of a metric over batches."""

    def __init__(self) -> None:
        self._name = ""
        self._total = 0.0
        self._count = 0
        self._parts: list[np.ndarray] = []

    def add(self, output: np.ndarray, labels: np.ndarray, data: str) -> None:
        """Count a batch.

        Raises:
            DataError: the labels do not fit the output.
        """
        self._name = next(name for name, metric in METRICS.items() if metric.takes(labels))
        scores = METRICS[self._name].scores(output, labels, data)
        self._parts.append(scores.reshape(len(labels), -1).sum(1, dtype=np.float64))
        self._total += float(self._parts[-1].sum())
        self._count += labels.size

    def result(self) -> Score | None:
        """The mean; None without labels."""
        return Score(self._name, self._total / self._count, self._count) if self._count else None

    def drop_error(self, pruned: RunningScore) -> float:
        """The standard error of the drop, from the differences of the samples (a paired comparison).

        It is at least that of one sample, for the case that no two answers differ.
        """
        old, new = np.concatenate(self._parts), np.concatenate(pruned._parts)
        if METRICS[self._name].fraction:
            lost = old - new
            return max(float(np.linalg.norm(lost - lost.mean())), 1.0) / self._count
        # The standard error of a ratio of two sums, to first order.
        total = old.sum()
        return float(np.linalg.norm(new - old * (new.sum() / total)) / total) if total else 0.0


def _misfit(labels: np.ndarray, output: np.ndarray, data: str) -> str:
    found = f"{labels.dtype} {list(labels.shape)}, {labels.min()} to {labels.max()}"
    return (
        f"the labels of {data} ({found}) do not fit the first output {list(output.shape)}: "
        "give integer classes, or float targets of the output's shape"
    )


class Metrics:
    @classmethod
    def of(cls, config: Any) -> Metrics:
        return cls()


NO_METRICS = Metrics()

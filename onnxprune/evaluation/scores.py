"""The scores of a model on labeled data, by one or more metrics, added up batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.config.evaluation import EvaluationSettings
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.errors import DataError, SettingError
from onnxprune.evaluation.custom import custom_metric, postprocessed
from onnxprune.evaluation.labels import LabelForm
from onnxprune.evaluation.metrics import METRICS, Metric, default_metric, kinds_text
from onnxprune.evaluation.predictions import Predictions, Records, joined
from onnxprune.model.endings import last_operators
from onnxprune.system.packages import require_package


@dataclass(frozen=True)
class Metrics:
    """The metrics that the settings name, the first one first, and the function that makes the output they are of.

    Without names, each labeled output has the metric of its kind of labels. `own_loss`: the loss is a function of the
    user's, so that labels need no form that is known. `ends`: the operator that each output of the model ends in.
    `output`: that of labels without a name, where the settings say it.

    Raises:
        SettingError: a name is no metric.
    """

    names: tuple[str, ...] = ()
    postprocess: str | None = None
    own_loss: bool = False
    ends: Mapping[str, str] = field(default_factory=dict)
    output: str | None = None

    @classmethod
    def of(cls, settings: EvaluationSettings, model: ir.Model, loss: str = "auto") -> Metrics:
        """Those of --metric and --postprocess, and --output, for the outputs of a model; `loss`: the setting."""
        ends = last_operators(model)
        made = cls(settings.metrics, settings.postprocess, ":" in loss, ends, settings.label_output)
        made.named()
        return made

    def named(self) -> dict[str, Metric]:
        """The metrics that are named, by name."""
        return {name: _metric(name) for name in self.names}

    def wanted(self) -> set[str]:
        """The kinds of labels that the named metrics take."""
        known = {kind for name in self.names if name in METRICS for kind in METRICS[name].takes}
        own = self.own_loss or any(name not in METRICS for name in self.names)
        return known | ({"other"} if own else set())

    def check_labeled(self, data: Dataset) -> None:
        """Check that there are labels for the named metrics.

        Raises:
            DataError: there are none.
        """
        if self.names and not data.labeled:
            raise DataError(
                f"--metric {self.names[0]} needs labels, but {data.name} has none: give labeled data, for example "
                "--eval-data"
            )

    def processed(self, outputs: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """The outputs by name, the first one as --postprocess makes it of all."""
        if self.postprocess is None:
            return dict(outputs)
        return {**outputs, next(iter(outputs)): postprocessed(self.postprocess, outputs, samples)}

    def _scores(self, output: str) -> bool:
        """Whether labels of this name are of an output; those for a loss of the user's own may have any."""
        return not output or not self.own_loss or output in self.ends

    def chosen(self, forms: Mapping[str, LabelForm]) -> list[tuple[str, Metric, str]]:
        """The metrics for labels of these forms, by output: name, metric and output, the primary one first.

        An output whose labels no named metric takes has the metric of its kind.

        Raises:
            DataError: a named metric takes the labels of no output.
            MissingPackageError: a package that a metric needs is not installed.
        """
        found: list[tuple[str, Metric, str]] = []
        for name, metric in self.named().items():
            fitting = [key for key, form in forms.items() if form.kind in metric.takes and self._scores(key)]
            if forms and not fitting:
                raise DataError(_unfit(name, metric, forms))
            found += [(name, metric, key) for key in fitting]
        for key, form in forms.items():
            usual = default_metric(form.kind)
            if usual is not None and not any(key == other for *_, other in found):
                found.append((usual, METRICS[usual], key))
        for name, metric, _ in found:
            for package in metric.needs:
                require_package(package, f"--metric {name}")
        return found


BY_KIND = Metrics()
"""The metric of each kind of labels."""


def _metric(name: str) -> Metric:
    if ":" in name:
        return custom_metric(name)
    if name not in METRICS:
        raise SettingError(f"--metric is {name!r}: it must be {', '.join(METRICS)} or MODULE:FUNCTION")
    return METRICS[name]


def _unfit(name: str, metric: Metric, forms: Mapping[str, LabelForm]) -> str:
    form = next(iter(forms.values()))
    others = [other for other, each in METRICS.items() if form.kind in each.takes]
    instead = " or ".join([", ".join(others), "MODULE:FUNCTION"] if others else ["MODULE:FUNCTION"])
    return (
        f"--metric {name} is for {kinds_text(metric.takes)}, but the labels of {form.data} are "
        f"{kinds_text((form.kind,))}: use {instead}"
    )


@dataclass(frozen=True)
class Score:
    """The value of a metric on samples; `output`: the key of the labels, "" for those of the first output."""

    name: str
    value: float
    samples: int
    output: str
    title: str
    text: str
    metric: Metric = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The score in JSON types."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "metric"}


class RunningScores:
    """The scores of one model by several metrics, over batches whose labels are normalized.

    `forms`: of the labels, see `labels.label_forms`; `names`: of the model's outputs, in order.
    """

    def __init__(self, metrics: Metrics, forms: Mapping[str, LabelForm], names: Sequence[str]) -> None:
        self._metrics, self._names = metrics, tuple(names)
        self.tracks = [Track(*chosen, forms[chosen[2]]) for chosen in metrics.chosen(forms)]

    def add(self, outputs: Mapping[str, Any] | Sequence[Any], batch: Batch) -> None:
        """Count the outputs for a batch: arrays by name, or in the order of the model.

        Raises:
            DataError: they do not fit the labels, or a user's function fails.
        """
        if not self.tracks or not batch.labels:
            return
        if not isinstance(outputs, Mapping):
            outputs = dict(zip(self._names, outputs, strict=True))
        made = self._metrics.processed(outputs, len(batch))
        first = next(iter(made))
        for track in self.tracks:
            output = made[track.output or first]
            is_made = self._metrics.postprocess is not None and (track.output or first) == first
            labels = batch.labels[track.output]
            track.add(Predictions(output, labels, track.form, outputs, batch.inputs, is_made))

    def results(self) -> tuple[Score, ...]:
        """The scores, the primary one first; none without labels."""
        return tuple(track.score() for track in self.tracks if track.samples)

    def records(self) -> list[Any]:
        """What another process needs to `merge`; it can be pickled."""
        return [track.contents() for track in self.tracks]

    def merge(self, others: Iterable[list[Any]]) -> None:
        """Add the records of other processes, in the order of their samples.

        Raises:
            DataError: a user's metric cannot be merged.
        """
        for contents in others:
            for track, content in zip_longest(self.tracks, contents):
                track.merge(*content)


class Track:
    """The records of one metric of one output."""

    def __init__(self, name: str, metric: Metric, output: str, form: LabelForm) -> None:
        self.name, self.metric, self.output, self.form = name, metric, output, form
        self.samples = 0
        self._state = None if metric.state is None else metric.state()
        self._parts: list[Records] = []
        # Samples of a group whose others are in the next batch.
        self._rest: tuple[Any, np.ndarray] | None = None

    def add(self, found: Predictions) -> None:
        """Count a batch."""
        self.samples += len(found)
        if self._state is not None:
            self._state.update(found)
            return
        found = self._whole_groups(found)
        if len(found):
            self._parts.append(self.metric.records(found))

    def _whole_groups(self, found: Predictions) -> Predictions:
        """The predictions with those that waited for the rest of their group, without those that wait now."""
        if self.form.group == 1:
            return found
        output, labels = np.asarray(found.output), found.labels
        if self._rest is not None:
            output, labels = np.concatenate([self._rest[0], output]), np.concatenate([self._rest[1], labels])
        whole = len(labels) // self.form.group * self.form.group
        self._rest = (output[whole:].copy(), labels[whole:].copy()) if whole < len(labels) else None
        return Predictions(
            output[:whole], labels[:whole], found.form, found.outputs, found.inputs, found.made
        )

    def joined(self) -> Records:
        """The records of all samples.

        Raises:
            DataError: a group of samples is not whole.
        """
        if self._rest is not None:
            raise DataError(
                f"--metric {self.name} scores {self.form.group} samples together, but {self.form.data} has "
                f"{self.samples}: give whole groups"
            )
        self._parts = [joined(self._parts)]
        return self._parts[0]

    def contents(self) -> tuple[int, Any]:
        """The number of samples, and the records or the state."""
        if self._state is not None:
            return self.samples, self._state
        return self.samples, self.joined() if self.samples else None

    def merge(self, samples: int, content: Any) -> None:
        """Add the contents of another process."""
        self.samples += samples
        if self._state is not None:
            self._state.merge(content)
        elif content is not None:
            self._parts.append(content)

    def score(self) -> Score:
        """The value of the metric so far."""
        value = self._state.value() if self._state is not None else self.metric.value(self.joined())
        title, text = self.metric.title, self.metric.text(value)
        return Score(self.name, value, self.samples, self.output, title, text, self.metric)

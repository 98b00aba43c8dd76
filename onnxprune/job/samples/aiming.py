"""Labels of a training graph that does not end where the model ends: which of its outputs they can be of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.data.dataset import Dataset
from onnxprune.errors import DataError
from onnxprune.evaluation.forms import find_form
from onnxprune.evaluation.labels import LabelForm, is_redirected, label_forms, redirected, with_given_labels
from onnxprune.evaluation.runs import run_batch
from onnxprune.evaluation.scores import Metrics, RunningScores
from onnxprune.evaluation.sessions import make_session

if TYPE_CHECKING:
    from onnxprune.training.session import PruningSession

# Samples whose labels and outputs are looked at.
SAMPLES = 32


@dataclass(frozen=True)
class Aim:
    """Data with its labels as those of a training graph.

    `unfit`: the keys of labels that only a loss of the user's own can use.
    """

    data: Dataset
    unfit: frozenset[str] = frozenset()

    def scored(self) -> dict[str, LabelForm]:
        """The forms of labels that metrics can be of."""
        return {key: form for key, form in label_forms(self.data).items() if key not in self.unfit}


def aimed(session: PruningSession, data: Dataset, *, custom: bool) -> Aim:
    """Data whose labels go to their output if it is trained, else to one that leads to it and that they fit.

    `custom`: whether the loss is a function of the user's, which gets labels of any form.
    """
    own, ends = [output.name or "" for output in session.model.graph.outputs], session.ends
    first = own[0]
    forms = label_forms(data)
    direct = ends.names[0] == first and not any(ends.stand_ins.get(key or first) for key in forms)
    if not forms or (direct and all((key or first) in ends.names for key in forms)):
        return Aim(data)
    batch = next(with_given_labels(data.take(slice(0, data.run_axes.size or SAMPLES))).batches(SAMPLES))
    outputs = dict(zip(ends.names, session.outputs_of(batch), strict=False))
    operators = dict(zip(ends.names, ends.operators, strict=True))
    found: dict[str, tuple[str, LabelForm]] = {}
    unfit: set[str] = set()
    for key, form in forms.items():
        name = key or first
        leading = {each: (outputs[each], operators[each]) for each in ends.stand_ins.get(name, ())}
        fitting = _fitting(batch.given[key], leading)
        if fitting is not None:
            name, fit = fitting
            # The offset has been added to the labels that were looked at.
            form = replace(fit, offset=form.offset)
        elif name not in ends.names:
            if not custom:
                continue
            form = replace(form, kind="other")
            unfit.add(key)
            found[key] = key, form
            continue
        found[key] = "" if key not in own and name == ends.names[0] else name, form
    return Aim(redirected(data, found), frozenset(unfit))


def _fitting(labels: np.ndarray, outputs: Mapping[str, tuple[Any, str]]) -> tuple[str, LabelForm] | None:
    """The first of some outputs, each with the operator that it ends in, that a loss on these labels can be of."""
    for name, (output, operator) in outputs.items():
        try:
            form = find_form(labels, output, name, end=operator)
        except DataError:
            continue
        if form.trains:
            return name, form
    return None


def session_until(model: ir.Model, name: str) -> ort.InferenceSession:
    """The part of a model before --train-until, in onnxruntime.

    Raises:
        SettingError: there is no such node or value.
    """
    from onnxprune.training.module.ends import needed, until

    part = model.clone()
    ends = until(part, name)
    part.graph.outputs[:] = ends
    wanted = needed(ends)
    part.graph.remove([node for node in part.graph if node not in wanted], safe=False)
    proto = ir.to_proto(ir.external_data.load_to_model(part))
    return make_session(proto, f"the model until {name}")


def check_scores(session: ort.InferenceSession, data: Dataset, metrics: Metrics) -> None:
    """Score the outputs of a model on some samples, which shows whether the labels are of outputs by sample.

    Raises:
        DataError: they are not.
    """
    scores = RunningScores(metrics, label_forms(data), [output.name for output in session.get_outputs()])
    batch = next(data.take(slice(0, data.run_axes.size or SAMPLES)).batches(SAMPLES))
    scores.add(run_batch(session, batch), batch)


def labels_fit(data: Dataset, outputs: list[str]) -> bool:
    """Whether all labels are of these outputs of a model, and none were redirected."""
    return not is_redirected(data) or all(not key or key in outputs for key in label_forms(data))

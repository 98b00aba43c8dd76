"""Labels of a training graph that does not end where the model ends: which of its outputs they can be of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.data.dataset import Dataset
from onnxprune.data.specs import InputSpec, fixed_batch
from onnxprune.errors import DataError
from onnxprune.evaluation.forms import find_form
from onnxprune.evaluation.labels import LabelForm, label_forms, redirected
from onnxprune.evaluation.runs import run_batch
from onnxprune.evaluation.scores import Metrics, RunningScores
from onnxprune.evaluation.sessions import make_session

if TYPE_CHECKING:
    from onnxprune.training.session import PruningSession

# Samples whose labels and outputs are looked at.
SAMPLES = 32


@dataclass(frozen=True)
class Aim:
    """What labels are of while a model is trained: by output of the model, the output of the training graph.

    `unfit`: outputs of the training graph with labels that only a loss of the user's own can use.
    """

    found: Mapping[str, tuple[str, LabelForm]] | None = None
    unfit: frozenset[str] = frozenset()

    def labels(self, data: Dataset) -> Dataset:
        """Data with its labels as those of the training graph."""
        return data if self.found is None else redirected(data, self.found)

    def scored(self, data: Dataset) -> dict[str, LabelForm]:
        """The forms of labels that metrics can be of."""
        return {name: form for name, form in label_forms(data).items() if name not in self.unfit}


def aimed(session: PruningSession, data: Dataset, fixed: int | None, custom: bool) -> Aim:
    """Where the labels of data go: to their output if it is trained, else to one that leads to it and that they fit.

    `custom`: whether the loss is a function of the user's, which gets labels of any form.
    """
    own, ends = [output.name or "" for output in session.model.graph.outputs], session.ends
    first = own[0]
    forms = label_forms(data)
    direct = ends.names[0] == first and not any(ends.stand_ins.get(key or first) for key in forms)
    if not forms or (direct and all((key or first) in ends.names for key in forms)):
        return Aim()
    batch = data.take(slice(0, fixed or SAMPLES)).read()
    outputs = dict(zip(ends.names, session.outputs_of(batch), strict=False))
    found: dict[str, tuple[str, LabelForm]] = {}
    unfit: set[str] = set()
    for key, form in forms.items():
        name = key or first
        fitting = _fitting(batch.labels[key], {each: outputs[each] for each in ends.stand_ins.get(name, ())})
        if fitting is None and name in ends.names:
            fitting = name, form
        if fitting is None and custom:
            fitting = ends.names[0], LabelForm("other", data.name)
            unfit |= {"", ends.names[0]}
        if fitting is not None:
            name, form = fitting
            found[key] = "" if key not in own and name == ends.names[0] else name, form
    return Aim(found, frozenset(unfit))


def _fitting(labels: np.ndarray, outputs: Mapping[str, Any]) -> tuple[str, LabelForm] | None:
    """The first of some outputs that a loss on these labels can be of."""
    for name, output in outputs.items():
        try:
            form = find_form(labels, output, name)
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
    from onnxprune.training.ends import needed, until

    part = model.clone()
    ends = until(part, name)
    part.graph.outputs[:] = ends
    wanted = needed(ends)
    part.graph.remove([node for node in part.graph if node not in wanted], safe=False)
    proto = ir.to_proto(ir.external_data.load_to_model(part))
    return make_session(proto, f"the model until {name}")


def check_scores(
    session: ort.InferenceSession, data: Dataset, specs: list[InputSpec], metrics: Metrics
) -> None:
    """Score the outputs of a model on some samples, which shows whether the labels are of outputs by sample.

    Raises:
        DataError: they are not.
    """
    fixed = None if data.whole else fixed_batch(specs)
    scores = RunningScores(metrics, label_forms(data), [output.name for output in session.get_outputs()])
    batch = data.take(slice(0, fixed or SAMPLES)).read()
    scores.add(run_batch(session, batch, fixed), batch)


def labels_fit(data: Dataset, outputs: list[str]) -> bool:
    """Whether all labels are of some of these outputs."""
    return all(not key or key in outputs for key in label_forms(data))

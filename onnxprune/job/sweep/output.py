"""The file that a sweep writes: the chosen run's, evaluated on test data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from onnxprune.config.settings import PruneConfig
from onnxprune.data.request import VALIDATION, Request
from onnxprune.data.specs import input_specs
from onnxprune.evaluation.batch_axes import find_axes
from onnxprune.evaluation.comparison import compare
from onnxprune.evaluation.runs import patience
from onnxprune.evaluation.scores import Metrics
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.samples.inputs import read_samples
from onnxprune.model.files.io import Source
from onnxprune.model.files.staging import staging
from onnxprune.reports.publishing import published
from onnxprune.reports.record import ANNOTATION_PREFIX, COMPACT, annotated
from onnxprune.sparse.opening import open_model
from onnxprune.system.trust import trust

# The names of a report's evaluations, and the settings that give their data.
TESTS = {"evaluation": "eval_data", "old_evaluation": "old_data"}


def write_chosen(
    origin: Source, file: Path, target: Path, config: PruneConfig, notes: list[str]
) -> dict[str, dict[str, Any]]:
    """Copy a run's file to the target, evaluated on the test data of the settings; returns the evaluations by name.

    The metadata of the copy has these evaluations, the settings and the notes.

    Raises:
        OnnxPruneError: the data does not fit, or the target cannot be written; it is not changed.
    """
    trust(config.allow_links, config.custom_ops)
    with staging(target, origin) as stage:
        stage.copy(file)
        tests = {name: data for name, key in TESTS.items() if (data := getattr(config, key)) is not None}
        found = {}
        if tests:
            model = open_model(origin.file).model
            specs, metrics = input_specs(model), Metrics.of(config, model, config.loss)
            sessions = make_session(origin.file, origin.name), make_session(stage.path, "the pruned model")
            axes = find_axes(sessions[0], specs, config.batch_axes, config.input_shapes, patience(model))
            request = Request(specs, config.transform, config.label_offset, VALIDATION, axes)
            for name, data in tests.items():
                samples = read_samples(data, sessions[0], request, metrics)
                found[name] = compare(*sessions, samples, metrics=metrics).to_dict()
        _annotate(stage.path, config, found, notes, target)
        stage.commit()
    return found


def _annotate(
    file: Path, config: PruneConfig, evaluations: dict[str, Any], notes: list[str], target: Path
) -> None:
    """Replace the entries of a file's metadata that the sweep has changed, or with --no-annotations remove them."""
    proto = onnx.load(file, load_external_data=False)
    written = {prop.key: prop.value for prop in proto.metadata_props}
    texts = {}
    if config.annotations:
        settings = json.loads(written[f"{ANNOTATION_PREFIX}settings"])
        given = config.to_dict()
        tested = {TESTS[name]: given[TESTS[name]] for name in evaluations}
        earlier = json.loads(written.get(f"{ANNOTATION_PREFIX}notes", "[]"))
        small = {name: annotated(each) for name, each in evaluations.items()}
        changed = {"settings": settings | tested, "notes": [*notes, *earlier], **small}
        texts = {
            f"{ANNOTATION_PREFIX}{key}": json.dumps(value, separators=COMPACT)
            for key, value in published(changed, target).items()
        }
    else:
        written = {key: text for key, text in written.items() if not key.startswith(ANNOTATION_PREFIX)}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, written | texts)
    file.write_bytes(proto.SerializeToString())

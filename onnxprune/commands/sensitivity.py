"""`onnxprune.sensitivity`: how far pruning one weight at a time moves the outputs (Han et al. 2015, section 4)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxprune.calibration.segments import compared
from onnxprune.calibration.walk import affordable
from onnxprune.config.checks import batch_axes, input_shapes
from onnxprune.config.declare import AxesLike, DataSource, ShapesLike, describe_source
from onnxprune.config.workers import IN_TURN
from onnxprune.data.axes import sized
from onnxprune.data.request import Request
from onnxprune.data.specs import check_shapes, input_specs
from onnxprune.errors import NothingToPruneError
from onnxprune.evaluation.batch_axes import find_axes
from onnxprune.evaluation.runs import patience
from onnxprune.evaluation.scores import Metrics
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.samples.inputs import read_inputs
from onnxprune.job.workers.hiring import hired
from onnxprune.job.workers.sensitivity import measured_by
from onnxprune.model.files.io import ModelLike
from onnxprune.model.weights import find_weights
from onnxprune.pruning.sensitivity import RATES, Scan, scan
from onnxprune.sparse.opening import open_model
from onnxprune.system.progress import Progress
from onnxprune.system.trust import Paths, trust


def sensitivity(
    model: ModelLike,
    data: DataSource,
    *,
    input_shape: ShapesLike = (),
    batch_axis: AxesLike = (),
    transform: str | None = None,
    label_offset: int = 0,
    label_output: str | None = None,
    rates: Sequence[float] = RATES,
    samples: int = 1000,
    state: str | os.PathLike[str] | None = None,
    seed: int = 0,
    workers: str | int = IN_TURN,
    progress: Progress = lambda fraction: None,
    allow_links: Paths = (),
    custom_ops: Paths = (),
) -> Scan:
    """Prune one weight at a time at each of the rates, and measure the deviation of the outputs.

    `data`: as in `prune`; the first `samples` are used, fewer if they would not fit in memory. `input_shape`: shapes of
    synthetic inputs. `batch_axis`, `transform`, `label_offset`, `label_output`: as in `prune`. `state`: a JSON file to
    save the scan to and to resume from. `workers`: as in `prune`; each measures a part of the weights. `allow_links`,
    `custom_ops`: as in `prune`.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it.
    """
    trust(allow_links, custom_ops)
    opened, shapes = open_model(model), input_shapes(input_shape)
    graph, origin = opened.model, opened.origin
    weights = find_weights(graph).prunable
    if not weights:
        raise NothingToPruneError(f"{origin.name} has no weight that can be pruned: see `onnxprune inspect`")
    session = make_session(origin.file, origin.name)
    specs = input_specs(graph)
    check_shapes(specs, shapes)
    axes = find_axes(session, specs, batch_axes(batch_axis), shapes, patience(graph))
    request = Request(specs, transform, label_offset, axes=axes)
    given = read_inputs(
        data,
        request,
        model=graph,
        baseline=session,
        seed=seed,
        generated=sized(specs, shapes, axes),
        metrics=Metrics(output=label_output),
    )
    inputs = given.take(slice(0, affordable(graph, given, samples))).read()
    about: dict[str, Any] = {
        "model": origin.sha256,
        "data": describe_source(data),
        "transform": transform,
        "label_offset": label_offset,
        "label_output": label_output,
        "samples": len(inputs),
        "shapes": {name: list(shape) for name, shape in inputs.shapes().items()},
        "rates": sorted(rates),
        "labeled": bool(inputs.labels),
        "compared": [value.name for value in compared(graph)],
    }
    file = None if state is None else Path(state)
    with hired(workers, most=len(weights)) as helpers:
        measure = measured_by(helpers, opened, inputs, about["rates"])
        for found in scan(weights, measure, about["rates"], about, file):
            progress(len(found.layers) / len(weights))
    return found

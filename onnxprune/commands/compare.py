"""`onnxprune.compare`: two models on the same inputs, output by output, in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from onnxprune.config.checks import batch_axes, input_shapes
from onnxprune.config.declare import AxesLike, DataSource, Names, ShapesLike
from onnxprune.config.evaluation import EvaluationSettings
from onnxprune.data.random import RANDOM_SAMPLES, random_data
from onnxprune.data.request import VALIDATION, Request
from onnxprune.data.sources import load_data
from onnxprune.data.specs import common_inputs, fix_shapes, input_specs
from onnxprune.errors import ModelFileError
from onnxprune.evaluation import comparison
from onnxprune.evaluation.batch_axes import find_axes
from onnxprune.evaluation.comparison import Evaluation, Tolerance
from onnxprune.evaluation.runs import check_runs, patience, random_inputs
from onnxprune.evaluation.scores import Metrics
from onnxprune.evaluation.sessions import make_session
from onnxprune.model.files.io import ModelLike, load
from onnxprune.reports.record import written_transform
from onnxprune.system.trust import Paths, trust

TOLERANCE = Tolerance(relative=1e-4, absolute=1e-5)


def compare(
    first: ModelLike,
    second: ModelLike,
    *,
    data: DataSource = None,
    input_shape: ShapesLike = (),
    batch_axis: AxesLike = (),
    transform: str | None = None,
    label_offset: int = 0,
    metric: Names = (),
    postprocess: str | None = None,
    label_output: str | None = None,
    tolerance: Tolerance = TOLERANCE,
    seed: int = 0,
    allow_links: Paths = (),
    custom_ops: Paths = (),
) -> Evaluation:
    """Run both models on `data`, as in `prune`, or on random inputs (of the shapes in `input_shape`).

    `batch_axis`, `transform`, `label_offset`, `metric`, `postprocess`, `label_output`: as in `prune`; without
    `transform`, that of the job that wrote one of the models. `mismatched` of an output counts the elements that
    differ by more than the tolerance. `allow_links`, `custom_ops`: as in `prune`.

    Raises:
        ModelFileError: a model is broken, or the models have different inputs or outputs.
        DataError: the data does not fit the models.
        SettingError: `input_shape` or `transform` does not fit the models, or there is no such metric.
    """
    trust(allow_links, custom_ops)
    models = [load(source) for source in (first, second)]
    scored = EvaluationSettings(metric=metric, postprocess=postprocess, label_output=label_output)
    metrics = Metrics.of(scored, models[0][0])
    names = [origin.name for _, origin in models]
    common = common_inputs(models[0][0], models[1][0], names)
    first_outputs, second_outputs = ([value.name for value in model.graph.outputs] for model, _ in models)
    if first_outputs != second_outputs:
        raise ModelFileError(
            f"{names[0]} and {names[1]} have different outputs ({_list(first_outputs)} and {_list(second_outputs)}): "
            "give two models with the same outputs"
        )
    sessions = [make_session(origin.file, origin.name) for _, origin in models]
    shapes = input_shapes(input_shape)
    fixed = fix_shapes(common, shapes)
    limit = patience(models[0][0]) or patience(models[1][0])
    axes = find_axes(sessions[0], input_specs(models[0][0]), batch_axes(batch_axis), shapes, limit).of_size(
        fixed
    )
    if data is None:
        # As many samples as were asked for.
        count = axes.size if shapes and axes.size else RANDOM_SAMPLES
        make = partial(random_data, samples=count)
        samples = random_inputs(sessions[0], fixed, axes, seed, make, limit)
    else:
        written = (written_transform(model.metadata_props) for model, _ in models)
        chosen = transform or next((text for text in written if text is not None), None)
        samples = load_data(data, Request(fixed, chosen, label_offset, VALIDATION, axes))
    samples = check_runs(sessions[0], samples, metrics)
    metrics.check_labeled(samples)
    return comparison.compare(sessions[0], sessions[1], samples, tolerance=tolerance, metrics=metrics)


def _list(names: Sequence[str | None]) -> str:
    return ", ".join(map(str, names)) or "none"

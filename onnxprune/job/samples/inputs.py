"""The data of a job: training, validation, calibration and test data, tried on the model before any long work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import onnx_ir as ir
import onnxruntime as ort

from onnxprune.calibration.synthetic import NAME as SYNTHETIC
from onnxprune.calibration.synthetic import synthetic_data
from onnxprune.config.declare import AUTO
from onnxprune.config.settings import PruneConfig
from onnxprune.data.axes import BatchAxes, sized
from onnxprune.data.axis_choice import declared_axes
from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset, class_names
from onnxprune.data.random import random_data
from onnxprune.data.request import TRAIN, VALIDATION, Request
from onnxprune.data.sources import load_data, transform_of
from onnxprune.data.specs import InputSpec, check_shapes, input_specs
from onnxprune.errors import DataError
from onnxprune.evaluation.batch_axes import find_axes
from onnxprune.evaluation.labels import is_redirected, label_forms, redirected, unnamed_output
from onnxprune.evaluation.runs import FREE_SIZES, check_runs, patience, random_inputs
from onnxprune.evaluation.scores import BY_KIND, Metrics
from onnxprune.job.requirements import reads_calibration
from onnxprune.job.samples.aiming import check_scores, labels_fit, session_until
from onnxprune.job.samples.held_out import fitted_samples, held_out, some_samples
from onnxprune.job.samples.losses import check_losses


@dataclass(frozen=True)
class JobData:
    """The data of a job; `old` is the second test set of --old-data.

    `untrained`: a sentence where --data is calibrated on instead of being trained on.
    """

    specs: list[InputSpec]
    training: Dataset | None
    validation: Dataset | None
    test: Dataset
    old: Dataset | None
    calibration: Dataset | None
    metrics: Metrics = BY_KIND
    untrained: str = ""

    def given(self) -> list[Dataset]:
        """All of them that there are, each once."""
        found = (self.training, self.validation, self.test, self.old, self.calibration)
        return [data for data in found if data is not None]

    def a_run(self) -> Batch:
        """The first test samples that the model takes at a time: one, unless it fixes how many."""
        return self.test.take(slice(0, self.test.run_axes.size or 1)).read()

    def in_runs_of(self, specs: list[InputSpec]) -> JobData:
        """The same data, of which test data is run as inputs of these fixed shapes take it."""

        def fixed(data: Dataset) -> Dataset:
            return replace(data, axes=data.axes.of_size(specs))

        return replace(self, test=fixed(self.test), old=None if self.old is None else fixed(self.old))

    def fitted_along(self, axes: BatchAxes) -> JobData:
        """The same data, of which what is trained and calibrated on lies along these axes meanwhile."""

        def freed(each: Dataset | None) -> Dataset | None:
            return None if each is None else replace(each, freed=axes)

        return replace(
            self,
            training=freed(self.training),
            validation=freed(self.validation),
            calibration=freed(self.calibration),
        )

    def guessed(self, config: PruneConfig) -> dict[str, str]:
        """The setting of images where the shape of the input decided it, as the text that has the same effect."""
        if config.transform is not None:
            return {}
        transforms = [transform for data in self.given() if (transform := transform_of(data)) is not None]
        return {"transform": transforms[0].text()} if transforms else {}


def read_job_data(
    model: ir.Model, baseline: ort.InferenceSession | None, config: PruneConfig, data: Dataset | None = None
) -> JobData:
    """The data of the settings, split and tried on the model; without any, generated inputs.

    `baseline`: None for a job that does not run the model and has no data.

    Test data is that of --eval-data, else of validation, else calibration samples that nothing is fitted to. Generated
    inputs have the shape of --input-shape, else that of the samples of --eval-data.
    `data`: the data of --data, if it has been opened already.

    Raises:
        DataError: something cannot be read, or the model does not run on it.
        SettingError: --input-shape does not fit the model.
    """
    specs, metrics = input_specs(model), Metrics.of(config, model, config.loss)
    asked = config.input_shapes
    # Checked now: otherwise the choice of kernels would refuse them, after the training.
    check_shapes(specs, asked)
    if baseline is None:
        axes = declared_axes(specs, config.batch_axes, [output.name or "" for output in model.graph.outputs])
        shapes = random_data(sized(specs, asked, axes), axes, FREE_SIZES[0], config.seed)
        return JobData(specs, None, None, shapes, None, None, metrics)
    limit = patience(model)
    axes = find_axes(baseline, specs, config.batch_axes, asked, limit)
    validating = Request(specs, config.transform, config.label_offset, VALIDATION, axes)
    # Without a training, nothing else is validated.
    tests = config.validation_data if config.eval_data is None and config.data is None else config.eval_data
    test = None if tests is None else read_samples(tests, baseline, validating, metrics)
    generated = sized(specs, asked if test is None else sample_shapes(test) | asked, axes)
    read = partial(
        read_inputs, model=model, baseline=baseline, seed=config.seed, generated=generated, metrics=metrics
    )
    training = validation = None
    if config.data is not None:
        aimed = partial(_read_aimed, read, model, config.train_until)
        everything = aimed(config.data if data is None else data, replace(validating, split=TRAIN))
        if config.validation_data is None:
            training, validation = everything.split(config.validation_split, config.seed)
        else:
            training, validation = everything, aimed(config.validation_data, validating)
    if test is None and validation is not None:
        names = [output.name for output in baseline.get_outputs()]
        test = validation if labels_fit(validation, names) else redirected(validation, {})
    # A criterion that is open may need them.
    measured = reads_calibration(config) or config.criterion == AUTO
    calibration = training if measured else None
    if config.calibration_data is not None and (measured or test is None):
        given = read(config.calibration_data, replace(validating, split=TRAIN))
        calibration, test = _apart(given, test, config, measured=measured)
    if test is None:
        test = random_inputs(baseline, generated, axes, config.seed, patience=limit)
    old = None if config.old_data is None else read_samples(config.old_data, baseline, validating, metrics)
    found = JobData(specs, training, validation, test, old, calibration, metrics)
    _check_classes([each for each in (training, validation, test) if each is not None])
    _check_outputs([each for each in (training, validation, test, old) if each is not None])
    for each in (training, validation, test, old):
        # Now, and not after hours of training.
        if each is not None:
            each.check()
    if training is not None and validation is not None:
        check_losses(training, validation, config)
    return found


def _apart(
    given: Dataset, test: Dataset | None, config: PruneConfig, *, measured: bool
) -> tuple[Dataset | None, Dataset]:
    """Of --calibration-data what is fitted to, None if nothing is, and test data, given or samples of it.

    `measured`: whether the job fits or measures something on calibration inputs.
    """
    if not measured:
        return None, some_samples(given) if test is None else test
    if test is None and config.evaluate:
        return held_out(given, config.calibration_samples)
    fitted = fitted_samples(given, config.calibration_samples)
    return fitted, fitted if test is None else test


def _check_outputs(given: list[Dataset]) -> None:
    """Refuse data whose labels seem to belong to other outputs.

    Raises:
        DataError: they do.
    """
    labeled = [
        data for data in given if unnamed_output(data) in label_forms(data) and not is_redirected(data)
    ]
    for data in labeled[1:]:
        if unnamed_output(data) != unnamed_output(labeled[0]):
            raise DataError(
                f"the labels of {labeled[0].name} and of {data.name} seem to belong to different outputs: give "
                "--output NAME"
            )


def _read_aimed(
    read: partial[Dataset], model: ir.Model, until: str | None, source: Any, request: Request
) -> Dataset:
    """Data for training, with labels of the model's outputs, or else of the values that --train-until names."""
    if until is None:
        return read(source, request)
    try:
        data = read(source, request)
        check_scores(read.keywords["baseline"], data, read.keywords["metrics"])
        return data
    except DataError as error:
        session = session_until(model, until)
        try:
            data = read(source, request, baseline=session)
        except DataError:
            raise error from None
        name = session.get_outputs()[0].name
        return redirected(data, {key: (key or name, form) for key, form in label_forms(data).items()})


def _check_classes(given: list[Dataset]) -> None:
    """Refuse data whose classes have other names: the same number would mean another class.

    Raises:
        DataError: they have.
    """
    named = [data for data in given if class_names(data)]
    for data in named[1:]:
        first, names = class_names(named[0]), class_names(data)
        if names != first:
            other = sorted(set(names) ^ set(first))[0] if set(names) != set(first) else "their order"
            raise DataError(
                f"{named[0].name} and {data.name} have different classes ({other}), so that one number means two of "
                "them: give the same names in both"
            )


def read_inputs(
    source: Any,
    request: Request,
    *,
    model: ir.Model,
    baseline: ort.InferenceSession,
    seed: int,
    generated: list[InputSpec],
    metrics: Metrics = BY_KIND,
) -> Dataset:
    """A data source, see `load_data`, or "synthetic": inputs generated from the model, of the specs `generated`.

    Raises:
        DataError: it cannot be read, or the model does not run on it.
    """
    if isinstance(source, str) and source == SYNTHETIC:
        make = partial(synthetic_data, model)
        return random_inputs(baseline, generated, request.batch_axes(), seed, make, patience(model))
    return read_samples(source, baseline, request, metrics)


def read_samples(
    source: Any, baseline: ort.InferenceSession, request: Request, metrics: Metrics = BY_KIND
) -> Dataset:
    """A data source, see `load_data`, or a dataset, that the model runs on, with labels in the form of its outputs.

    Raises:
        DataError: it cannot be read, or the model does not run on it.
    """
    data = source if isinstance(source, Dataset) else load_data(source, request)
    return check_runs(baseline, data, metrics)


def sample_shapes(data: Dataset) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs for one sample."""
    return data.take(slice(0, 1)).read().shapes()

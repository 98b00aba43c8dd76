"""Without test data a job is evaluated on calibration samples that nothing was fitted to, and nothing chosen by."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import ValidationError
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.samples.held_out import HANDFUL, LARGEST_SHARE, MOST, SHARE
from onnxprune.job.samples.inputs import read_job_data
from tests.builders import cnn, mlp, normal
from tests.job.samples.test_freeing import with_batch

SETTINGS = {"rate": 0.5, "criterion": "second-order"}


def material(model, source, **settings):
    session = make_session(model, "the model")
    config = PruneConfig(**SETTINGS | {"calibration_data": source} | settings)
    return read_job_data(ir.from_proto(model), session, config)


def numbers(data):
    return set(data.numbers().tolist())


class Stream:
    """Batches of inputs, anew at every pass."""

    def __init__(self, inputs):
        self.inputs = inputs

    def __iter__(self):
        return ({"x": self.inputs[start : start + 7]} for start in range(0, len(self.inputs), 7))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("count", "most", "fitted", "evaluated"),
    [
        (90, 40, 40, 50),
        (45, 40, 40, 5),
        (44, 40, 39, 5),
        (200, 512, 175, 25),
        (580, 512, 512, 68),
        (570, 512, 506, 64),
        (3_000, 100, 100, MOST),
    ],
)
def test_what_is_evaluated_on_is_not_fitted_to(count, most, fitted, evaluated, stream):
    inputs = normal(count, 8)
    source = Stream(inputs) if stream else {"x": inputs}
    found = material(mlp(), source, calibration_samples=most)
    assert (len(found.calibration), len(found.test)) == (fitted, evaluated)
    assert not numbers(found.calibration) & numbers(found.test)
    assert max(numbers(found.calibration) | numbers(found.test)) < count
    assert len(found.test) >= max(HANDFUL, round(SHARE * fitted))
    if fitted == most:
        with_tests = material(mlp(), source, calibration_samples=most, eval_data={"x": inputs[:9]})
        assert numbers(with_tests.calibration) == numbers(found.calibration)


def test_the_same_samples_are_evaluated_on_whatever_the_seed():
    for count in (200, 3_000):
        tests = [numbers(material(mlp(), {"x": normal(count, 8)}, seed=seed).test) for seed in (0, 7)]
        assert tests[0] == tests[1]


@pytest.mark.parametrize("size", [1, 8])
def test_a_model_that_fixes_its_batch_is_calibrated_on_whole_runs(size):
    found = material(with_batch(cnn(), size), {"x": normal(80, 1, 8, 8)})
    assert len(found.calibration) % size == 0 and len(found.test) % size == 0
    assert len(found.calibration) + len(found.test) == 80


def test_very_few_samples_are_all_fitted_to_which_is_told():
    few = int(HANDFUL / LARGEST_SHARE) - 1
    found = material(mlp(), {"x": normal(few, 8)})
    assert len(found.calibration) == len(found.test) == few
    told = [
        onnxprune.prune(mlp(), **SETTINGS, calibration_data={"x": normal(count, 8)}).report.notes
        for count in (few, few + 1)
    ]
    assert [any("has only 24 samples, so the evaluation" in note for note in notes) for notes in told] == [
        True,
        False,
    ]
    assert any(note.startswith("Nothing was fitted to 5 of the 25 samples of ") for note in told[1])


FITTED = [
    {"criterion": "second-order", "reconstruct": True},
    {"criterion": "magnitude", "allocation": "sensitivity"},
    {"pattern": "channel", "allocation": "sensitivity", "rate": 0.3},
    {"quantize": "int8", "quantize_ranges": "auto"},
    {"values": "int4", "criterion": "magnitude"},
    {"calibration_samples": 64},
]


@pytest.mark.parametrize("settings", FITTED, ids=lambda settings: "-".join(map(str, settings.values())))
def test_what_is_evaluated_on_has_no_part_in_the_model(settings):
    """With any other values in the place of these samples, every weight is the same to the last bit."""
    inputs = normal(200, 1, 8, 8)
    settings = {"rate": 0.5, "format": "dense", **settings}
    settings |= {"format": "ops"} if "values" in settings else {}
    apart = material(cnn(), {"x": inputs}, **settings).test.numbers()
    others = inputs.copy()
    others[apart] = 3 * normal(len(apart), 1, 8, 8, seed=9)
    results = [onnxprune.prune(cnn(), calibration_data={"x": each}, **settings) for each in (inputs, others)]
    graphs = [[each.SerializeToString() for each in result.model.graph.initializer] for result in results]
    assert graphs[0] == graphs[1]
    moved = [result.report.evaluation["outputs"][0]["cosine"] for result in results]
    assert moved[0] != moved[1]


def test_labels_of_calibration_data_are_scored():
    inputs = normal(400, 8)
    (logits,) = ort.InferenceSession(mlp().SerializeToString()).run(None, {"x": inputs})
    settings = SETTINGS | {"calibration_samples": 300, "effort": "fast"}
    labeled = {"x": inputs, "labels": logits.argmax(1)}
    report = onnxprune.prune(mlp(), calibration_data=labeled, **settings).report
    evaluation = report.evaluation
    assert evaluation["baseline"]["name"] == "top-1" and evaluation["baseline"]["value"] == 1
    assert evaluation["samples"] == 100 and evaluation["data"].endswith("that nothing was fitted to")
    assert any("its score there is too good: give --eval-data" in note for note in report.notes)
    with pytest.raises(ValidationError, match=r"worse by .* on a part of .* that nothing was fitted to"):
        onnxprune.prune(mlp(), calibration_data=labeled, **settings | {"rate": 0.95, "max_drop": "0.1%"})


def test_where_nothing_is_fitted_all_are_evaluated_on():
    """As many as are allowed."""
    given = {"rate": 0.5, "criterion": "magnitude"}
    for count, evaluated in ((300, 300), (2_000, MOST)):
        found = material(mlp(), {"x": normal(count, 8)}, **given)
        assert found.calibration is None and len(found.test) == evaluated


def test_where_nothing_is_evaluated_nothing_is_held_out():
    found = material(mlp(), {"x": normal(200, 8)}, evaluate=False)
    assert len(found.calibration) == 200
    result = onnxprune.prune(mlp(), **SETTINGS, calibration_data={"x": normal(200, 8)}, evaluate=False)
    assert not any("Nothing was fitted" in note for note in result.report.notes)


def test_validation_data_without_a_training_is_evaluated_on():
    found = material(mlp(), {"x": normal(200, 8)}, validation_data={"x": normal(30, 8, seed=1)})
    assert (len(found.calibration), len(found.test)) == (200, 30)


def test_generated_inputs_are_held_out_too_and_said_to_be_generated():
    report = onnxprune.prune(mlp(), **SETTINGS, calibration_data="synthetic").report
    assert report.evaluation["samples"] == 32
    assert any(note.startswith("The evaluation is on generated inputs, too") for note in report.notes)


def test_a_sweep_without_training_is_scored_on_them(tmp_path):
    onnx.save(mlp(), tmp_path / "in.onnx")
    np.savez(tmp_path / "inputs.npz", x=normal(200, 8))
    found = onnxprune.sweep(
        tmp_path / "in.onnx",
        tmp_path / "out.onnx",
        grid={"rate": [0.3, 0.9], "calibration_data": str(tmp_path / "inputs.npz"), "effort": "fast"},
        max_drop=0.5,
    )
    drops = [each.over_seeds(lambda scored: scored.drop).mean for each in found.combinations]
    assert len(drops) == 2 and drops[0] <= drops[1]
    evaluated = onnxprune.prune(
        tmp_path / "in.onnx", rate=0.9, calibration_data=tmp_path / "inputs.npz", effort="fast"
    ).report.evaluation
    assert evaluated["samples"] == 25 and drops[1] == pytest.approx(evaluated["drop"])

"""Reconstruction over several layers, through the whole job."""

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import OnnxPruneError
from onnxprune.evaluation.sessions import make_session
from onnxprune.job.pruners import blockwise
from tests.builders import cnn, initializer, normal

SETTINGS = {
    "rate": 0.8,
    "criterion": "second-order",
    "allocation": "uniform",
    "format": "dense",
    "remove_dead": False,
}


@pytest.fixture
def efforts(monkeypatch):
    plans = {"normal": blockwise.Effort(0, 60, 1e12), "best": blockwise.Effort(40, 60, 1e12)}
    monkeypatch.setattr(blockwise, "EFFORTS", plans)
    return plans


def prune(**settings):
    data = {
        "calibration_data": {"x": normal(512, 1, 8, 8)},
        "eval_data": {"x": normal(64, 1, 8, 8, seed=1)},
    }
    result = onnxprune.prune(cnn(), **(SETTINGS | data | settings))
    return result, result.report.evaluation["outputs"][0]["cosine"]


def test_more_effort_comes_nearer_to_the_dense_outputs_and_keeps_the_masks(efforts):
    (fast, first), (normal_, second), (best, third) = (
        prune(effort=effort) for effort in ("fast", "normal", "best")
    )
    assert first < second <= third
    for result in (normal_, best):
        for name in ("conv1.weight", "conv2.weight", "fc.weight"):
            assert np.count_nonzero(initializer(result.model, name)) == np.count_nonzero(
                initializer(fast.model, name)
            )
    assert not any("Reconstruction over" in note for note in fast.report.notes)
    assert (
        sum("Reconstruction over the whole network (8 of 60 steps" in note for note in normal_.report.notes)
        == 1
    )
    # The network is one section, which is trained once.
    told = [note for note in best.report.notes if "Reconstruction over" in note]
    assert len(told) == 1 and "(13 of 100 steps" in told[0]


def test_layers_that_are_excluded_stay_as_they_are(efforts):
    result, _ = prune(exclude=["fc"])
    assert any("Reconstruction over" in note for note in result.report.notes)
    for name in ("fc.weight", "fc.bias"):
        np.testing.assert_array_equal(initializer(result.model, name), initializer(cnn(), name))


def test_layers_are_not_fitted_to_the_samples_that_validate_them():
    """Without updates over several layers, which `conftest` leaves out."""
    x = normal(64, 1, 8, 8)
    other = x.copy()
    other[7::8] = 10 * normal(8, 1, 8, 8, seed=3)
    moved = x.copy()
    moved[6::8] = other[7::8]
    weights = [
        initializer(prune(calibration_data={"x": inputs})[0].model, "conv2.weight")
        for inputs in (x, other, moved)
    ]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[2] - weights[0]).max() > 1e-3


def test_of_few_samples_none_are_set_apart(efforts):
    notes = [prune(calibration_data={"x": normal(count, 1, 8, 8)})[0].report.notes for count in (63, 64)]
    told = [next(note for note in some if "Reconstruction over" in note) for some in notes]
    assert ["to which the layers were fitted before" in note for note in told] == [True, False]


def channels(**settings):
    return prune(pattern="channel", rate=0.5, remove_dead=True, **settings)


def test_channels_that_are_left_are_trained_towards_the_dense_outputs_without_excluded_layers(efforts):
    (fast, first), (normal_, second) = (
        channels(exclude=["fc"], effort=effort) for effort in ("fast", "normal")
    )
    assert 1 - second < 0.9 * (1 - first)
    for name in ("fc.weight", "fc.bias"):
        np.testing.assert_array_equal(initializer(normal_.model, name), initializer(cnn(), name))
    for name in ("conv1.weight", "conv2.weight"):
        assert initializer(normal_.model, name).shape == initializer(fast.model, name).shape
    told = [sum("Reconstruction over" in note for note in each.report.notes) for each in (fast, normal_)]
    assert told == [0, 1]


def test_the_zeros_of_removed_channels_stay_in_the_training(efforts, monkeypatch):
    small, _ = channels()
    monkeypatch.setattr("onnxprune.job.pipeline.remove_dead_units", lambda model: None)
    zeroed, _ = channels()
    x = {"x": normal(16, 1, 8, 8, seed=2)}
    outputs = [make_session(each.model, "a model").run(None, x)[0] for each in (small, zeroed)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-4)
    assert initializer(small.model, "conv1.weight").size < initializer(zeroed.model, "conv1.weight").size


def test_without_reconstruction_nothing_is_trained(efforts):
    result, _ = prune(reconstruct=False)
    assert not any("Reconstruction over" in note for note in result.report.notes)


def trained(**settings):
    data = {"x": normal(640, 1, 8, 8)}
    notes = prune(**{"calibration_data": None, "data": data, "epochs": 2} | settings)[0].report.notes
    return [note for note in notes if "Reconstruction over" in note]


@pytest.mark.parametrize("settings", [{}, {"pattern": "channel", "rate": 0.5, "remove_dead": True}])
def test_what_is_pruned_in_one_step_is_reconstructed_before_it_is_trained(efforts, settings):
    # Two passes over the 576 samples that are trained on, in batches of 32, are 36 steps. An eighth of
    # them gains nothing.
    [note] = trained(schedule="one-shot", **settings)
    assert "(5 of 36 steps" in note


def test_between_several_pruning_steps_the_training_does_it(efforts):
    assert not trained(schedule="iterative", steps=2)


def test_a_short_training_leaves_no_time_for_it(efforts):
    assert not trained(schedule="one-shot", epochs=1)


def test_the_time_of_a_job_bounds_it(monkeypatch):
    monkeypatch.setattr(blockwise.time, "monotonic", lambda: 100.0)
    assert blockwise.Limits(deadline=180.0).seconds() == 20.0
    assert blockwise.Limits(deadline=90.0).seconds() == 0.0 and blockwise.NO_LIMITS.seconds() is None


def test_without_torch_layers_are_reconstructed_one_by_one(efforts, monkeypatch):
    monkeypatch.setattr("onnxprune.system.packages.find_spec", lambda name: None)
    result, _ = prune()
    assert any("needs torch" in note for note in result.report.notes)


def test_work_is_bounded(efforts):
    efforts["normal"] = blockwise.Effort(0, 60, 1.0)
    result, _ = prune()
    assert not any("Reconstruction over" in note for note in result.report.notes)
    assert any("takes long for a model of this size; --effort best" in note for note in result.report.notes)


def test_what_torch_cannot_run_is_named_and_left_as_it_is(efforts, monkeypatch):
    def refuse(*arguments):
        raise OnnxPruneError("Conv conv1 is not known")

    monkeypatch.setattr("onnxprune.training.reconstruction.to_torch", refuse)
    result, _ = prune()
    assert any(
        "Not reconstructed over several layers" in note and "conv1" in note for note in result.report.notes
    )


def test_a_job_tells_how_far_layers_are_fitted_alone_and_together_and_then_trained(efforts):
    told: dict[str, list[float]] = {}

    def note(stage: str, fraction: float) -> None:
        told.setdefault(stage, []).append(fraction)

    training = {"data": {"x": normal(640, 1, 8, 8)}, "epochs": 2, "batch_size": 288, "schedule": "one-shot"}
    onnxprune.prune(cnn(), progress=note, **(SETTINGS | training))
    stages = [stage for stage in told if stage in ("prune", "reconstruct", "fine-tune")]
    assert stages == ["prune", "reconstruct", "fine-tune"]
    assert told["prune"] == sorted(told["prune"]) and len(set(told["prune"])) == 3, "one for each layer"
    steps = told["reconstruct"]
    assert steps == sorted(steps) and len(set(steps)) > 5 and steps[-1] == 1
    assert sorted(set(told["fine-tune"])) == [0, 0.25, 0.5, 0.75, 1]


def test_sections_and_then_the_network_have_their_parts_of_the_progress(monkeypatch):
    monkeypatch.setitem(blockwise.EFFORTS, "normal", blockwise.Effort(30, 90, 1e12))
    monkeypatch.setattr(blockwise, "MOST_WEIGHTS", 1)
    told: list[float] = []

    def note(stage: str, fraction: float) -> None:
        if stage == "reconstruct":
            told.append(fraction)

    inputs = {"x": normal(128, 1, 8, 8)}
    onnxprune.prune(cnn(), calibration_data=inputs, eval_data=inputs, progress=note, **SETTINGS)
    assert told == sorted(told) and told[-1] == 1
    # A quarter of the updates is those of the sections.
    assert 0.25 in told and any(0 < each < 0.08 for each in told) and any(0.25 < each < 0.3 for each in told)

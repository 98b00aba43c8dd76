"""Settings that are chosen by short trainings, and augmentations that the input model is indifferent to."""

import importlib.util
import math
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset
from onnxprune.data.specs import input_specs
from onnxprune.evaluation.runs import BATCH_SAMPLES, check_runs
from onnxprune.job import deadline
from onnxprune.job.choices import defaults, rehearsal
from onnxprune.job.choices.invariances import safe_augmentation
from onnxprune.job.choices.rehearsal import ALLOCATION_TOLERANCE, TOLERANCE, _first_good, _largest_good
from onnxprune.job.samples.inputs import JobData
from onnxprune.sparse.opening import open_model
from tests.builders import mlp, normal

pytest.importorskip("torch")

LABELS = np.arange(160) % 4
DATA = {"x": normal(160, 8) + LABELS[:, None].astype(np.float32), "labels": LABELS}


def test_the_largest_learning_rate_that_is_nearly_as_good_is_chosen():
    assert _largest_good({0.01: 1.0, 0.03: TOLERANCE, 0.1: TOLERANCE + 0.01}) == 0.03
    assert _largest_good({0.01: 2.0, 0.03: 1.0, 0.1: math.inf}) == 0.03


def test_the_first_allocation_that_is_nearly_as_good_is_chosen():
    assert _first_good({"global": ALLOCATION_TOLERANCE, "erk": 1.0, "uniform": 1.0}) == "global"
    assert _first_good({"global": ALLOCATION_TOLERANCE + 0.01, "erk": 1.0, "uniform": 0.9}) == "erk"


@pytest.mark.rehearses
def test_a_job_tells_what_it_chose_and_the_same_flags_give_the_same_model():
    one = onnxprune.prune(mlp(), rate=0.5, data=DATA, epochs=2)
    settings = one.report.settings
    assert settings["allocation"] in rehearsal.WEIGHT_ALLOCATIONS
    assert settings["learning_rate"] in rehearsal.LEARNING_RATES["adam"]
    assert any(note.startswith("Chosen for this job: --allocation ") for note in one.report.notes)
    names = (
        "allocation",
        "learning_rate",
        "schedule",
        "optimizer",
        "batch_size",
        "warmup",
        "mixup",
        "augment",
    )
    two = onnxprune.prune(mlp(), rate=0.5, data=DATA, epochs=2, **{name: settings[name] for name in names})
    weights = [
        sorted((each.name, each.raw_data) for each in result.model.graph.initializer) for result in (one, two)
    ]
    assert weights[0] == weights[1]


@pytest.mark.rehearses
def test_rehearsals_leave_the_model_and_choose_the_better_candidate(monkeypatch):
    tried = []

    def run(self, config, progress, deadline=None):
        tried.append((config.allocation, config.learning_rate))
        loss = {"global": 3.0, "erk": 1.0, "uniform": 2.0}[config.allocation]
        return loss + abs(math.log10(config.learning_rate) + 2.5)

    monkeypatch.setattr(rehearsal.Rehearsal, "run", run)
    settings = onnxprune.prune(mlp(), rate=0.5, data=DATA, epochs=100).report.settings
    assert tried[:3] == [("global", 1e-3), ("erk", 1e-3), ("uniform", 1e-3)]
    assert tried[3:] == [("erk", rate) for rate in rehearsal.LEARNING_RATES["adam"]]
    assert (settings["allocation"], settings["learning_rate"]) == ("erk", 3e-3)


@pytest.mark.rehearses
def test_a_short_training_is_not_rehearsed(monkeypatch):
    monkeypatch.setattr(
        rehearsal.Rehearsal, "run", lambda self, config, progress, deadline: pytest.fail("a rehearsal")
    )
    settings = onnxprune.prune(mlp(), rate=0.5, data=DATA, epochs=1).report.settings
    assert (settings["allocation"], settings["learning_rate"]) == ("erk", 1e-3)


@pytest.mark.rehearses
@pytest.mark.parametrize("settings", [{"rate": 0.5, "pattern": "2:4"}, {"std_threshold": 0.5}])
def test_nothing_is_rehearsed_where_the_rates_are_fixed(settings, monkeypatch):
    monkeypatch.setattr(
        rehearsal.Rehearsal, "run", lambda self, config, progress, deadline: pytest.fail("a rehearsal")
    )
    result = onnxprune.prune(mlp(), data=DATA, epochs=1, learning_rate=1e-3, **settings)
    assert result.report.settings["allocation"] == "uniform"


@pytest.mark.rehearses
def test_a_time_budget_is_kept_and_told():
    result = onnxprune.prune(mlp(), rate=0.5, data=DATA, time="6s")
    seconds = result.report.seconds
    assert sum(seconds.values()) < 12
    assert (result.report.settings["time"], result.report.settings["epochs"]) == ("6s", None)
    assert result.report.fine_tuning[-1]["epoch"] > 1


@pytest.mark.rehearses
def test_rehearsals_share_their_time_and_too_little_of_it_chooses_nothing(monkeypatch):
    now, deadlines = [100.0], []

    def run(self, config, progress, deadline):
        deadlines.append(deadline)
        now[0] += 2
        progress(0.5)
        return math.nan if config.allocation == "uniform" else 1.0

    monkeypatch.setattr(rehearsal.Rehearsal, "run", run)
    monkeypatch.setattr(rehearsal, "time", SimpleNamespace(monotonic=lambda: now[0]))
    model = open_model(mlp()).model
    config = PruneConfig(rate=0.5, epochs=100, batch_size=16, optimizer="adam")
    specs = input_specs(model)
    data = check_runs(ort.InferenceSession(mlp().SerializeToString()), Dataset.of({"x": DATA["x"]}, LABELS))
    given = JobData(specs, data, data, data, None, None)
    dense = SimpleNamespace(multiply_adds=10**6, parameters=100)
    told = []
    found = rehearsal.rehearsed(model, "mlp", given, config, dense, None, told.append, deadline=114.0)
    # Within each rehearsal, and behind it; the third has none.
    assert told == pytest.approx([0.5 / 7, 1 / 7, 1.5 / 7, 2 / 7, 2.5 / 7])
    # Three allocations and four learning rates in 14 seconds.
    assert deadlines == [102.0, 104.0, 106.0]
    assert (found.allocation, found.learning_rate) == ("erk", defaults.UNTRIED_LEARNING_RATES["adam"])


@pytest.mark.rehearses
def test_a_rehearsal_with_too_little_time_says_so(monkeypatch):
    losses = []
    whole = rehearsal.Rehearsal.run

    def run(self, config, progress, deadline):
        losses.append(whole(self, config, progress, rehearsal.time.monotonic() - 1))
        return losses[-1]

    monkeypatch.setattr(rehearsal.Rehearsal, "run", run)
    settings = onnxprune.prune(mlp(), rate=0.5, data=DATA, epochs=100).report.settings
    assert len(losses) == 1
    assert math.isnan(losses[0])
    assert settings["allocation"] == "erk"


@pytest.mark.parametrize(("second", "kept"), [(0.5, 10 + 20), (20.0, 10 + 250)])
def test_the_training_leaves_time_to_write_and_to_evaluate_both_models(monkeypatch, second, kept):
    now = [100.0]

    def run_batch(session, batch):
        assert len(batch) == BATCH_SAMPLES
        now[0] += second

    monkeypatch.setattr(deadline, "run_batch", run_batch)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: now[0]))
    test = Dataset.of({"x": normal(20 * BATCH_SAMPLES, 8)}, None)
    given = JobData(input_specs(open_model(mlp()).model), None, None, test, None, None)
    assert deadline.training_deadline(90.0, 500.0, None, given) == 590 - kept


def images(axis):
    """Images (200, 3, 8, 8) with a light half along an axis, and which half it is."""
    labels = np.arange(200) % 2
    pixels = np.random.default_rng(0).random((200, 3, 8, 8)).astype(np.float32) * 0.1
    for index, label in enumerate(labels):
        half = slice(4 * label, 4 * label + 4)
        pixels[(index, slice(None), half) if axis == 2 else (index, slice(None), slice(None), half)] += 1
    return pixels, labels


@pytest.mark.parametrize(("axis", "safe"), [(2, True), (3, False)])
def test_a_model_that_minds_mirrors_is_not_trained_on_them(axis, safe):
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    grid = np.indices((3, 8, 8))[axis - 1].ravel()
    weight = np.stack([grid < 4, grid >= 4], 1).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "halves",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels, labels = images(axis)
    specs = input_specs(open_model(model).model)
    data = check_runs(session, Dataset.of({"x": pixels}, labels, name="halves"))
    found = safe_augmentation(session, data, specs)
    assert ("flip" in found) == safe

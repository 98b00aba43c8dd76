"""Searching for the rate within a budget, and picking from the trials it leaves."""

import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune.commands.pick import pick
from onnxprune.config.settings import PruneConfig
from onnxprune.data.dataset import Dataset
from onnxprune.errors import DataError, SettingError, ValidationError
from onnxprune.evaluation.fitting import fit_labels
from onnxprune.job.early_checks import check_measurable
from onnxprune.job.pipeline import run
from onnxprune.job.result import Context
from onnxprune.job.search import job as search_module
from onnxprune.job.search import trials
from onnxprune.job.search.frontier import Frontier, Trial, best_within
from onnxprune.model.files.io import load
from onnxprune.model.weights import find_weights
from onnxprune.sparse.restore import from_ops
from tests.builders import cnn, mlp, normal

HIDDEN = 32
BUDGET = 0.1
X = normal(500, 8, seed=5)


def outputs(path, x=X):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A model, the data that it is right on, and a finished search."""
    folder = tmp_path_factory.mktemp("search")
    onnx.save(mlp(8, HIDDEN), folder / "in.onnx")
    labels = outputs(folder / "in.onnx").argmax(1)
    np.savez(folder / "data.npz", x=X[:400], labels=labels[:400])
    np.savez(folder / "test.npz", x=X[400:], labels=labels[400:])
    return folder, search(folder, "out.onnx", eval_data=str(folder / "test.npz")).report


def search(folder, output, **settings):
    settings = {
        "max_drop": BUDGET,
        "epochs": 8,
        "batch_size": 50,
        "learning_rate": 1e-2,
        "warmup": 5,
    } | settings
    return onnxprune.prune(
        folder / "in.onnx", folder / output, data=str(folder / "data.npz"), allocation="global", **settings
    )


def without_time(trials):
    """Trials but for what depends on the clock, and on the length of the settings in the file."""
    return [
        {key: value for key, value in trial.items() if key not in ("seconds", "size")} for trial in trials
    ]


def kept(path):
    model, _ = load(path)
    from_ops(model)
    return {weight.name: weight.array() != 0 for weight in find_weights(model).prunable}


def test_the_highest_rate_within_the_budget_is_written(searched):
    folder, report = searched
    (chosen,) = [trial for trial in report.trials if trial["chosen"]]
    assert chosen["rate"] > 0 and chosen["drop"] <= BUDGET
    assert all(trial["rate"] <= chosen["rate"] for trial in report.trials if trial["drop"] <= BUDGET)
    assert any(trial["rate"] > chosen["rate"] for trial in report.trials)
    assert sum(mask.sum() for mask in kept(folder / "out.onnx").values()) == chosen["kept"]
    np.testing.assert_array_equal(
        outputs(folder / "out.onnx"), outputs(folder / "out.onnx.frontier" / chosen["model"])
    )


def test_each_round_trains_half_as_many_rates_twice_as_long(searched):
    epochs = [trial["epochs"] for trial in searched[1].trials]
    assert sorted(set(epochs)) == [1, 2, 4, 8] and epochs == sorted(epochs)
    assert epochs.count(2) <= 4 and epochs.count(4) <= 2 and epochs.count(8) == 1


def test_a_time_is_shared_among_the_trials_as_epochs_are(searched, tmp_path, monkeypatch):
    clock, given = SimpleNamespace(now=0.0), []

    def timed(experiment, attempt, progress):
        clock.now += attempt.seconds
        given.append((attempt.epochs, attempt.seconds))
        return trials.perform(experiment, replace(attempt, seconds=None), progress)

    monkeypatch.setattr(search_module, "perform", timed)
    monkeypatch.setattr(search_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    # Shares of the time stay those of the epochs; 5 % of it is left for the result.
    report = search(searched[0], tmp_path / "out.onnx", time="1000s", epochs=None, batch_size=5).report
    assert report.settings["time"] == "1000s" and report.settings["epochs"] is None
    assert 900 < clock.now <= 950 + 1e-6
    epochs, seconds = map(np.array, zip(*given, strict=True))
    assert seconds[0] == pytest.approx(950 / 34) and (np.diff(seconds) >= -1e-9).all()
    last, longest = seconds[-1], epochs.max()
    assert last == pytest.approx(950 - seconds[:-1].sum()) and epochs[-1] == longest


def test_no_trial_begins_after_the_time(searched, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def slow(experiment, attempt, progress):
        clock.now += 100
        return trials.perform(experiment, replace(attempt, seconds=None), progress)

    monkeypatch.setattr(search_module, "perform", slow)
    monkeypatch.setattr(search_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    report = search(searched[0], tmp_path / "out.onnx", max_drop=0.9, time="300s", epochs=None).report
    assert len(report.trials) == 3


def test_a_search_with_a_time_ends(searched, tmp_path):
    report = search(searched[0], tmp_path / "out.onnx", max_drop=0.99, time="4s", epochs=None).report
    assert any(trial["chosen"] for trial in report.trials)


def test_a_trial_keeps_no_connection_that_its_starting_trial_removed(searched, tmp_path):
    settings = {"data": str(searched[0] / "data.npz"), "epochs": 1, "remove_dead": False, "format": "dense"}
    # A draw cuts others than the smallest, which the trial after it would cut by itself.
    denser = PruneConfig(rate=0.5, selection="probability", checkpoint=tmp_path / "state", **settings)
    sparser = PruneConfig(rate=0.7, **settings)
    run(searched[0] / "in.onnx", tmp_path / "a.onnx", denser, silent)
    context = Context(sparser, start=tmp_path / "state")
    run(searched[0] / "in.onnx", tmp_path / "b.onnx", sparser, silent, context)
    run(searched[0] / "in.onnx", tmp_path / "c.onnx", sparser, silent)
    began, gone_on, alone = (kept(tmp_path / f"{name}.onnx") for name in "abc")
    assert all((began[name] | ~mask).all() for name, mask in gone_on.items())
    assert not all((began[name] | ~mask).all() for name, mask in alone.items())


def test_test_data_is_not_used_for_any_choice_of_the_search(searched, tmp_path):
    folder, report = searched
    blind = search(folder, tmp_path / "out.onnx").report
    assert without_time(blind.trials) == without_time(report.trials)
    assert report.evaluation["data"].endswith("test.npz") and report.evaluation["samples"] == 100
    assert "validation split" in blind.evaluation["data"]


def test_an_interrupted_search_resumes_to_the_same_trials(searched, tmp_path):
    folder, report = searched

    def interrupt(stage, fraction):
        if stage.startswith("trial 4") and stage.endswith(": fine-tune") and fraction > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(folder, tmp_path / "out.onnx", progress=interrupt)
    assert not (tmp_path / "out.onnx").exists()
    left = Frontier.read(tmp_path / "out.onnx.frontier")
    assert len(left.trials) == 3
    assert all((left.folder / trial.model).exists() for trial in left.trials if trial.model)
    with pytest.raises(SettingError, match="holds a search already: continue it with --resume"):
        search(folder, tmp_path / "out.onnx")
    with pytest.raises(SettingError, match="belongs to a search with other settings"):
        search(folder, tmp_path / "out.onnx", resume=True, seed=1)
    gone_on = search(folder, tmp_path / "out.onnx", resume=True).report
    assert without_time(gone_on.trials) == without_time(report.trials)
    np.testing.assert_array_equal(outputs(tmp_path / "out.onnx"), outputs(folder / "out.onnx"))
    with pytest.raises(SettingError, match=r"the search in .* is finished"):
        search(folder, tmp_path / "out.onnx", resume=True)


def test_a_killed_search_resumes_to_the_same_rates(searched, tmp_path):
    folder, report = searched
    code = (
        "import sys; from pathlib import Path; from tests.job.search.test_search import search; "
        "search(Path(sys.argv[1]), sys.argv[2])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, folder, tmp_path / "out.onnx"])
    index = tmp_path / "out.onnx.frontier" / "frontier.json"
    while not index.exists() or len(Frontier.read(index.parent).trials) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    left = Frontier.read(index.parent)
    assert all(outputs(index.parent / trial.model).shape == (500, 4) for trial in left.trials if trial.model)
    assert not (tmp_path / "out.onnx").exists()
    gone_on = search(folder, tmp_path / "out.onnx", resume=True).report
    assert [trial["rate"] for trial in gone_on.trials] == [trial["rate"] for trial in report.trials]
    assert not list(index.parent.glob(".onnxprune-*"))


def test_a_finished_search_leaves_an_index_and_the_models_on_the_frontier(searched):
    folder = searched[0] / "out.onnx.frontier"
    trials = Frontier.read(folder).trials
    models = {trial.model for trial in trials if trial.model}
    assert {path.name for path in folder.iterdir()} == models | {"frontier.json"}
    best = [trial for trial in trials if trial.model]
    assert not any(one.dominates(other) for one in best for other in best if one != other)
    assert all(any(one.dominates(other) for one in best) for other in trials if not other.model)


def test_no_rate_within_the_budget_leaves_the_target_as_it_was(searched, tmp_path):
    (tmp_path / "out.onnx").write_bytes(b"before")
    noise = np.random.default_rng(0).integers(0, 4, len(X))
    data = {"x": X, "labels": noise}
    settings = {"max_drop": 0.0, "epochs": 1, "learning_rate": 1.0, "warmup": 0, "distill": 0.0}
    with pytest.raises(ValidationError, match="no trial has a drop of at most"):
        onnxprune.prune(
            searched[0] / "in.onnx",
            tmp_path / "out.onnx",
            data=data,
            validation_data=str(searched[0] / "test.npz"),
            **settings,
        )
    assert (tmp_path / "out.onnx").read_bytes() == b"before"


def test_batches_from_an_iterator_are_used_by_every_trial(searched, tmp_path):
    labels = outputs(searched[0] / "in.onnx").argmax(1)
    batches = ({"x": X[i : i + 100], "labels": labels[i : i + 100]} for i in range(0, 400, 100))
    report = onnxprune.prune(searched[0] / "in.onnx", data=batches, max_drop=0.2, epochs=1).report
    assert len(report.trials) > 3


def test_another_point_is_picked_without_a_new_run(searched, tmp_path):
    folder, report = searched
    best = [trial for trial in report.trials if trial["model"]]
    sparsest, densest = (choose(best, key=lambda trial: trial["rate"]) for choose in (max, min))
    assert pick(folder / "out.onnx.frontier", tmp_path / "a.onnx", max_drop=1).number == sparsest["number"]
    assert pick(folder / "out.onnx.frontier", tmp_path / "b.onnx", rate=0).number == densest["number"]
    for name, trial in (("a", sparsest), ("b", densest)):
        picked = tmp_path / f"{name}.onnx"
        assert picked.stat().st_size == trial["size"]
        assert sum(mask.sum() for mask in kept(picked).values()) == trial["kept"]
    with pytest.raises(SettingError, match=r"no trial in .* has a rate of 100.00% or more"):
        pick(folder / "out.onnx.frontier", tmp_path / "c.onnx", rate=0.999999)
    with pytest.raises(SettingError, match="not the folder of a search"):
        pick(tmp_path, tmp_path / "c.onnx", rate=0.5)


def silent(stage, fraction):
    pass


def test_a_loss_relative_to_the_input_model_is_a_budget_too(searched):
    folder, report = searched
    # The input model is right for all samples, so that a tenth of its accuracy is a tenth.
    found = search(folder, "relative.onnx", max_drop=None, max_loss=BUDGET).report
    assert [trial["rate"] for trial in found.trials] == [trial["rate"] for trial in report.trials]
    assert found.notes[0].startswith("The highest rate of")


def test_too_few_validation_samples_are_refused_before_any_training(tmp_path):
    data = {"x": np.zeros((40, 1, 8, 8), np.float32), "labels": np.zeros(40, np.int64)}
    with pytest.raises(DataError, match=r"has 4 samples, on which a search cannot tell .*--validation-split"):
        onnxprune.prune(cnn(), tmp_path / "out.onnx", max_drop=0.01, data=data, epochs=1)
    assert not list(tmp_path.iterdir())


def test_a_drop_that_one_answer_exceeds_is_warned_of(caplog):
    config = PruneConfig(max_drop=0.01, data="d.npz")
    check_measurable(labeled(50), config)
    assert "One more wrong answer on samples (50 samples) is 2.00%, above --max-drop" in caplog.text
    caplog.clear()
    check_measurable(labeled(100), config)
    assert not caplog.text


def labeled(count):
    """Samples with four classes."""
    data = Dataset.of({"x": np.zeros((count, 2), np.float32)}, np.arange(count) % 4, "samples")
    return fit_labels(data, data.read(), {"y": np.zeros((1, 4), np.float32)})


def test_a_model_without_weights_is_no_answer_however_good_it_looks():
    common = {"epochs": 1, "start": None, "size": 1, "metric": "top-1", "value": 1.0, "baseline": 1.0}
    common |= {"drop": 0.0, "drop_error": None, "seconds": 1.0, "model": None}
    trials = [Trial(0, 0.9, kept=10, **common), Trial(1, 0.999, kept=0, **common)]
    assert best_within(trials, 0.01) is trials[0]
    assert best_within(trials[1:], 0.01) is None

"""What TensorBoard and MLflow are told of a job, read back from their own files."""

import importlib.util
import json
import logging

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import cli
from onnxprune.errors import MissingPackageError, OutputError, SettingError, ValidationError
from onnxprune.reports import tracking
from onnxprune.reports.tracking import Tracking
from tests.builders import cnn

X = np.random.default_rng(0).random((60, 1, 8, 8), dtype=np.float32)
DATA = {"x": X, "labels": np.arange(60) % 4}
JOB = {"rate": 0.7, "data": DATA, "epochs": 2, "batch_size": 16, "schedule": "iterative", "steps": 2}
# Whole batches of the 54 samples beside those for validation.
AN_EPOCH = 54 // 16


@pytest.fixture(autouse=True)
def quiet():
    """Loggers as they are in Python, where nothing else has asked for what they say."""
    logger = logging.getLogger("onnxprune")
    level = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(level)


def tensorboard(folder, title=""):
    """The scalars and the texts of the only run in a folder with a title: (step, value) by name, and texts by name."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (run,) = (each for each in folder.iterdir() if each.name.startswith(title))
    found = accumulators.EventAccumulator(str(run), {"tensors": 0, "scalars": 0})
    found.Reload()
    scalars = {
        name: [(each.step, each.value) for each in found.Scalars(name)] for name in found.Tags()["scalars"]
    }
    texts = {
        name.removesuffix("/text_summary"): [
            each.tensor_proto.string_val[0].decode() for each in found.Tensors(name)
        ]
        for name in found.Tags()["tensors"]
    }
    return scalars, texts


def expected(epochs, name):
    """The points of a curve: (update, value)."""
    return [(round(each["epoch"] * AN_EPOCH), each[name]) for each in epochs if each[name] is not None]


def close(points):
    return [(step, pytest.approx(value, rel=1e-5)) for step, value in points]


def test_tensorboard_has_every_evaluation_the_stages_and_the_result(tmp_path):
    result = onnxprune.prune(cnn(), tmp_path / "out.onnx", log_to=f"tensorboard:{tmp_path}/runs", **JOB)
    scalars, texts = tensorboard(tmp_path / "runs")
    report = result.report
    assert scalars["validation loss"] == close(expected(report.fine_tuning, "loss"))
    assert scalars["training loss"] == close(expected(report.fine_tuning, "training_loss"))
    assert scalars["validation top-1"] == close(expected(report.fine_tuning, "score"))
    rates = [value for _, value in scalars["rate"]]
    assert rates == sorted(rates) and 0 < rates[0] < 0.6 and rates[-1] == pytest.approx(0.7, abs=0.02)
    assert scalars["pruned/bytes"] == [(0, report.pruned.bytes)]
    assert scalars["pruned/top-1"] == [(0, pytest.approx(report.evaluation["pruned"]["value"]))]
    assert {name for name in scalars if name.startswith("rates/")} == {
        f"rates/{each.name}" for each in report.layers
    }
    assert texts["stage"][0] == "load" and texts["stage"][-1] == "evaluate" and "prune" in texts["stage"]
    assert "| rate | 0.7 |" in texts["settings"][0] and "log_to" not in texts["settings"][0]


def test_each_run_of_a_sweep_is_a_run(tmp_path):
    settings = JOB | {"rate": 0.5, "epochs": 1, "schedule": "one-shot", "steps": 1}
    shared = {name: value for name, value in settings.items() if name != "rate"}
    runs = tmp_path / "runs"
    found = onnxprune.sweep(
        cnn(),
        grid={"rate": [0.5, 0.7]},
        seeds=2,
        folder=tmp_path / "sweep",
        log_to=f"tensorboard:{runs}",
        **shared,
    )
    assert not found.failed and len(list(runs.iterdir())) == 4
    for each in found.combinations:
        for seed, run in enumerate(each.runs):
            scalars, texts = tensorboard(runs, f"rate={each.values['rate']} seed={seed}-")
            assert scalars["pruned/bytes"] == [(0, run.scored.size)]
            assert f"| rate | {each.values['rate']} |" in texts["settings"][0]
    kept = b"".join(file.read_bytes() for file in (tmp_path / "sweep").iterdir())
    assert str(runs).encode() not in kept
    # Where they are logged is no part of what the runs are.
    again = onnxprune.sweep(
        cnn(), grid={"rate": [0.5, 0.7]}, seeds=2, folder=tmp_path / "sweep", resume=True, **shared
    )
    assert again.combinations == found.combinations


def test_mlflow_has_the_same(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    # Newer versions refuse folders otherwise, and databases need the whole of MLflow.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    place = (tmp_path / "mlruns").as_uri()
    report = onnxprune.prune(cnn(), tmp_path / "out.onnx", log_to=f"mlflow:{place}", **JOB).report
    client = MlflowClient(tracking_uri=place)
    (run,) = client.search_runs([client.get_experiment_by_name("onnxprune").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name.startswith("out-")
    assert run.data.params["rate"] == "0.7" and "log_to" not in run.data.params
    assert run.data.tags["stage"] == "evaluate"
    found = [
        (each.step, each.value) for each in client.get_metric_history(run.info.run_id, "validation loss")
    ]
    assert sorted(found) == close(sorted(expected(report.fine_tuning, "loss")))
    assert run.data.metrics["pruned/bytes"] == report.pruned.bytes
    with pytest.raises(ValidationError):
        onnxprune.prune(cnn(), log_to=f"mlflow:{place}", max_drop=0.0, **JOB | {"rate": 0.99, "epochs": 1})
    runs = client.search_runs([run.info.experiment_id])
    assert sorted(each.info.status for each in runs) == ["FAILED", "FINISHED"]


def test_trials_of_a_search_have_curves_of_their_own(tmp_path):
    settings = JOB | {"rate": None, "epochs": 1, "max_drop": 1.0, "validation_split": 0.4}
    result = onnxprune.prune(
        cnn(), tmp_path / "out.onnx", log_to=[f"tensorboard:{tmp_path}/runs"], **settings
    )
    scalars, _ = tensorboard(tmp_path / "runs")
    trials = result.report.trials
    assert {"trial 1/validation loss", f"trial {len(trials)}/validation loss"} <= scalars.keys()
    assert [value for _, value in scalars["trials/rate"]] == pytest.approx(
        [trial["rate"] for trial in trials]
    )


def test_what_is_published_does_not_tell_where_a_job_was_logged(tmp_path):
    place = f"tensorboard:{tmp_path}/secret"
    report = onnxprune.prune(cnn(), tmp_path / "out.onnx", rate=0.5, log_to=place).report
    assert report.settings["log_to"] == [place]
    metadata = {each.key: each.value for each in onnx.load(tmp_path / "out.onnx").metadata_props}
    assert json.loads(metadata["onnxprune.settings"])["log_to"] == [] and "secret" not in str(metadata)


def test_the_command_line_logs_too_and_retrain(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    onnx.save(cnn(), "in.onnx")
    np.savez("data.npz", **DATA)
    cli.main(["in.onnx", "out.onnx", "--rate", "0.5", "--log-to", "tensorboard:runs"])
    assert "result/rate" in tensorboard(tmp_path / "runs")[0]
    cli.main([
        "retrain", "out.onnx", "new.onnx", "--data", "data.npz", "--epochs", "1", "--log-to", "tensorboard:more",
    ])  # fmt: skip
    assert "validation loss" in tensorboard(tmp_path / "more")[0]


@pytest.mark.parametrize("place", ["tensorboard", "tensorboard:", "wandb:x", "http://me:password@host"])
def test_a_place_that_is_none_is_refused_without_repeating_it(place):
    with pytest.raises(
        SettingError, match=r"--log-to is .*: give tensorboard:runs or mlflow:http"
    ) as refusal:
        onnxprune.prune(cnn(), rate=0.5, log_to=place)
    assert "password" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_package_that_is_missing_is_named_before_any_work(kind, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "onnxprune.system.packages.find_spec", lambda name: None if name == kind else found(name)
    )
    with pytest.raises(
        MissingPackageError, match=rf"--log-to {kind} needs .*pip install 'onnxprune\[{kind}\]'"
    ):
        onnxprune.prune("missing.onnx", rate=0.5, log_to=f"{kind}:x")


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--log-to tensorboard cannot be written"):
        onnxprune.prune("missing.onnx", rate=0.5, log_to=f"tensorboard:{tmp_path}/file")


def test_a_server_that_is_not_there_is_refused_after_a_few_tries(monkeypatch):
    pytest.importorskip("mlflow")
    for setting in tracking.PATIENCE:
        monkeypatch.delenv(setting, raising=False)
    tried = []

    def refused(self, *args, **kwargs):
        tried.append(1)
        raise OSError("connection refused")

    monkeypatch.setattr("urllib3.connection.HTTPConnection.connect", refused)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(OutputError, match=r"--log-to mlflow cannot be written: .*; check the place"):
        onnxprune.prune("missing.onnx", rate=0.5, log_to="mlflow:http://127.0.0.1:1")
    assert 1 <= len(tried) <= 3


def test_a_tracker_that_fails_ends_with_one_warning_and_the_others_go_on(caplog):
    told = []

    class Broken:
        def number(self, name, value, step):
            raise ConnectionError("the server is gone")

    class Working:
        def number(self, name, value, step):
            told.append((name, value, step))

    tracker = Tracking([Broken(), Working()], lambda stage, fraction: None)
    evaluation = {
        "training_loss": None,
        "loss": 2.0,
        "metric": None,
        "score": None,
        "rate": 0.5,
        "epoch": 1.0,
    }
    record = logging.makeLogRecord({"evaluation": evaluation | {"update": 7}})
    with caplog.at_level(logging.WARNING, "onnxprune"):
        tracker.emit(record)
        tracker.emit(record)
    assert told == 2 * [("validation loss", 2.0, 7), ("rate", 0.5, 7), ("epoch", 1.0, 7)]
    assert [each.getMessage() for each in caplog.records] == [
        "--log-to Broken ends here: the server is gone."
    ]


def test_short_trainings_that_choose_settings_are_not_logged():
    told = []
    tracker = Tracking([], lambda stage, fraction: told.append(stage))
    tracker.write = lambda action: told.append("written")
    tracker.progress(tracking.REHEARSAL, 0.5)
    tracker.emit(logging.makeLogRecord({"evaluation": {"loss": 1.0}}))
    assert told == ["written", tracking.REHEARSAL]

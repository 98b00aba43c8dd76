"""A killed job goes on from its checkpoint to the very result of an undisturbed one."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
import torch

from onnxprune import cli
from onnxprune.errors import OutputError, SettingError
from onnxprune.training.checkpoint import Checkpoint
from tests.builders import cnn, initializer, mlp

# Starting processes takes seconds: one schedule, and the others with ONNXPRUNE_LONG=1.
LONG = (
    ["gradual", "gradual --criterion movement", "rigl", "ac-dc"] if os.environ.get("ONNXPRUNE_LONG") else []
)
SCHEDULES = ["prune-and-regrow", *LONG]
JOB = (
    "in.onnx",
    "--rate",
    "0.8",
    "--data",
    "data.npz",
    "--epochs",
    "20",
    "--batch-size",
    "8",
    "--format",
    "dense",
    "--allocation",
    "uniform",
    "--learning-rate",
    "1e-3",
)
CHECKPOINT = ("--checkpoint", "state", "--checkpoint-minutes", "0")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "in.onnx")
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.random((200, 8), dtype=np.float32), labels=rng.integers(0, 4, 200))
    return tmp_path


def run(*arguments):
    cli.main([JOB[0], *arguments[:1], *JOB[1:], *arguments[1:]])


def weights(path):
    model = onnx.load(path)
    return {tensor.name: initializer(model, tensor.name) for tensor in model.graph.initializer}


def kill_after_first_checkpoint(folder, arguments):
    script = "import sys; from onnxprune.cli import main; main(sys.argv[1:])"
    job = subprocess.Popen([sys.executable, "-c", script, *arguments])
    while not (folder / "state").exists():
        assert job.poll() is None, "the job ended before its first checkpoint"
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(job.pid, signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_killed_job_resumes_to_the_same_bits(folder, schedule):
    flags = ("--schedule", *schedule.split(), "--dropout", "fc1=0.2")
    run("straight.onnx", *flags)
    kill_after_first_checkpoint(folder, [JOB[0], "killed.onnx", *JOB[1:], *flags, *CHECKPOINT])
    assert not (folder / "killed.onnx").exists()
    done = torch.load("state", weights_only=True)["session"]["updates"]
    assert 0 < done < 20 * 22
    run("resumed.onnx", *flags, *CHECKPOINT[:2], "--resume")
    straight, resumed = weights("straight.onnx"), weights("resumed.onnx")
    assert straight.keys() == resumed.keys()
    assert all((straight[name] == resumed[name]).all() for name in straight)


def test_a_killed_job_with_workers_and_augmentation_resumes_to_the_same_bytes(folder):
    images = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    for label in "0123":
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(16):
            pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
            images.fromarray(pixels).save(folder / "photos" / label / f"{number}.png")
    onnx.save(cnn(), "cnn.onnx")
    job = [
        "--data",
        "photos",
        "--rate",
        "0.8",
        "--epochs",
        "40",
        "--batch-size",
        "8",
        "--augment",
        "flip,crop:1",
        "--allocation",
        "uniform",
        "--learning-rate",
        "1e-3",
    ]
    cli.main(["cnn.onnx", "straight.onnx", *job, "--data-workers", "0"])
    kill_after_first_checkpoint(folder, ["cnn.onnx", "killed.onnx", *job, "--data-workers", "2", *CHECKPOINT])
    done = torch.load("state", weights_only=True)["session"]["updates"]
    assert 0 < done < 40 * 7
    cli.main(["cnn.onnx", "resumed.onnx", *job, "--data-workers", "2", *CHECKPOINT[:2], "--resume"])
    straight, resumed = onnx.load("straight.onnx"), onnx.load("resumed.onnx")
    assert straight.graph.SerializeToString() == resumed.graph.SerializeToString()


def test_resuming_without_a_checkpoint_starts_from_the_beginning_and_twice_changes_nothing(folder):
    flags = ("--epochs", "2", *CHECKPOINT[:2], "--resume")
    run("first.onnx", *flags)
    run("second.onnx", *flags)
    assert all((weights("first.onnx")[name] == array).all() for name, array in weights("second.onnx").items())


# Another seed divides the data otherwise, too.
@pytest.mark.parametrize(
    ("change", "differs"), [(["--learning-rate", "0.5"], "settings"), (["--seed", "3"], "settings, data")]
)
def test_a_checkpoint_of_another_job_is_refused(folder, capsys, change, differs):
    flags = ("--epochs", "1", *CHECKPOINT[:2], "--resume")
    run("out.onnx", *flags)
    with pytest.raises(SystemExit) as stop:
        run("out.onnx", *flags, *change)
    assert stop.value.code == 2
    assert f"state belongs to a job with other {differs}:" in capsys.readouterr().err


def test_other_data_are_refused_and_so_is_what_is_no_checkpoint(folder, capsys):
    flags = ("--epochs", "1", *CHECKPOINT[:2], "--resume")
    run("out.onnx", *flags)
    np.savez("data.npz", x=np.ones((200, 8), np.float32), labels=np.zeros(200, int))
    with pytest.raises(SystemExit):
        run("out.onnx", *flags)
    assert "state belongs to a job with other data:" in capsys.readouterr().err
    (folder / "state").write_bytes(b"no checkpoint")
    with pytest.raises(SystemExit):
        run("out.onnx", *flags)
    assert "--resume cannot read state" in capsys.readouterr().err


def test_a_checkpoint_runs_nothing_that_it_holds(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    torch.save({"origin": {}, "session": Harmful()}, tmp_path / "state")
    with pytest.raises(SettingError, match=r"--resume cannot read .*state"):
        Checkpoint(str(tmp_path / "state"), 1, {}, writes=True).read()
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    checkpoint = Checkpoint(str(tmp_path / "state"), 1, {"a": 1}, writes=True)
    checkpoint.write({"number": 1})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="state cannot be written: No space left on device"):
        checkpoint.write({"number": 2})
    assert checkpoint.read()["number"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_on_a_full_disk_the_checkpoint_is_as_it_was(tmp_path):
    state = Checkpoint(str(tmp_path / "state"), 1, {"model": "a"}, writes=True)
    state.write({"w": torch.zeros(3)})
    before = (tmp_path / "state").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OutputError, match=r"--checkpoint .*state cannot be written: File too large"):
            state.write({"w": torch.zeros(3000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "state").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state"]

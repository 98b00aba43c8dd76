"""Two processes started by torchrun against one."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from onnxprune import cli
from onnxprune.errors import SettingError
from onnxprune.training.distributed import Processes, joined
from tests.builders import initializer, mlp

# Starting processes takes seconds: one schedule, and the others with ONNXPRUNE_LONG=1.
LONG = (
    ["gradual", "gradual --criterion movement", "rigl", "ac-dc"] if os.environ.get("ONNXPRUNE_LONG") else []
)
SCHEDULES = ["prune-and-regrow", *LONG]
SCRIPT = "import sys; from onnxprune.cli import main; main(sys.argv[1:])"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_two_processes_train_the_model_of_one_and_only_the_first_writes(tmp_path, monkeypatch, schedule):
    onnx.save(mlp(), tmp_path / "in.onnx")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    np.savez(
        tmp_path / "data.npz", x=rng.random((200, 8), dtype=np.float32) + labels[:, None] / 2, labels=labels
    )
    (tmp_path / "job.py").write_text(SCRIPT)
    flags = [
        "--rate",
        "0.8",
        "--data",
        "data.npz",
        "--epochs",
        "6",
        "--batch-size",
        "30",
        "--format",
        "dense",
    ]
    # Each process mixes the samples of its own part.
    flags += ["--schedule", *schedule.split(), "--no-mixup", "--allocation", "uniform"]
    monkeypatch.chdir(tmp_path)
    cli.main(["in.onnx", "one.onnx", *flags])
    # --standalone takes a free port of its own.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "job.py"]
    done = subprocess.run([*torchrun, "in.onnx", "two.onnx", *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = (onnx.load(f"{name}.onnx") for name in ("one", "two"))
    for tensor in one.graph.initializer:
        first, second = initializer(one, tensor.name), initializer(two, tensor.name)
        assert ((first != 0) == (second != 0)).all()
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-5)
    assert done.stdout.count("Evaluated in onnxruntime") == 1


DATASET = """
import os
import numpy as np
from torch.utils.data import Dataset, get_worker_info

class Logged(Dataset):
    def __len__(self):
        return 120

    def __getitem__(self, index):
        if get_worker_info() is not None:
            with open(f"read by {os.environ['RANK']}", "a") as log:
                log.write(f"{index}\\n")
        return np.random.default_rng(index).random(8, dtype=np.float32), index % 4
"""


def test_no_process_reads_what_another_trains_or_validates_on(tmp_path):
    onnx.save(mlp(), tmp_path / "in.onnx")
    (tmp_path / "job.py").write_text(SCRIPT)
    (tmp_path / "logged.py").write_text(DATASET)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "job.py"]
    flags = [
        "--rate",
        "0.5",
        "--data",
        "logged:Logged",
        "--epochs",
        "1",
        "--batch-size",
        "12",
        "--data-workers",
        "1",
    ]
    done = subprocess.run(
        [*torchrun, "in.onnx", "out.onnx", *flags], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    first, second = (
        {int(line) for line in (tmp_path / f"read by {rank}").read_text().split()} for rank in "01"
    )
    assert not first & second
    # 108 samples for training and 12 for validation, halved.
    assert len(first) == len(second) == 60


def test_a_batch_that_cannot_be_split_equally_between_processes_is_refused():
    with joined("cpu") as alone:
        assert alone.part(7) == slice(0, 7)
        with pytest.raises(
            SettingError, match="a batch of 7 samples cannot be divided equally among 2 processes"
        ):
            Processes(2, 0, alone.device).part(7)
        assert Processes(2, 1, alone.device).part(8) == slice(4, 8)


def test_a_device_that_does_not_exist_is_refused():
    with (
        pytest.raises(SettingError, match=r"--device cuda:99 cannot be used .*: use --device cpu"),
        joined("cuda:99"),
    ):
        pass

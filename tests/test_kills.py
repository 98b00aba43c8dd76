"""Processes killed, interrupted, starved of disk and let loose on one target: it is whole, the old or the new one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from tests.builders import floats, mlp, model_of, normal

KILLS = 100 if os.environ.get("ONNXPRUNE_LONG") else 4
# Over and over, the same target from two models in turn, with and without external data.
REPLACER = """
import itertools, sys
from onnxprune import prune
print("begun", flush=True)
for turn in itertools.count():
    for source in sys.argv[1:]:
        data = "never" if turn % 3 == 2 else "always"
        form = "ops" if turn % 2 else "dense"
        prune(source, "out.onnx", rate=0.5, allocation="uniform", format=form, external_data=data)
"""
# Imports once, which takes seconds, and forks a job for each line of arguments. Prints its number, and after another
# line, so that it is there to be killed until then, how it ended.
FORKER = """
import json, os, sys
import torch
from onnxprune import cli
import onnxprune.training.fine_tuning
# The first optimizer imports for a second, in which there is nothing to kill.
torch.optim.Adam([torch.zeros(1, requires_grad=True)])
print("begun", flush=True)
for line in sys.stdin:
    job = os.fork()
    if not job:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        status = 0
        try:
            cli.main(json.loads(line))
        except SystemExit as stop:
            status = stop.code
        os._exit(status)
    print(job, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]), flush=True)
"""
RETRAINING = (
    *(
        "--rate",
        "0.8",
        "--data",
        "data.npz",
        "--epochs",
        "4",
        "--batch-size",
        "16",
        "--external-data",
        "always",
    ),
    *("--checkpoint", "state", "--checkpoint-minutes", "0.002", "--resume"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(64, 128), "a.onnx")
    onnx.save(mlp(64, 128, seed=9), "b.onnx")
    return tmp_path


def outputs(path):
    """What a model gives: of a target whose files do not belong together, an error or something else."""
    onnx.checker.check_model(path)
    x = normal(4, 64)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def replacer(*sources):
    process = subprocess.Popen([sys.executable, "-c", REPLACER, *sources], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    return process


def expected():
    from onnxprune import prune

    for name in ("a", "b"):
        prune(f"{name}.onnx", f"{name}-pruned.onnx", rate=0.5, allocation="uniform", format="dense")
    return [outputs(f"{name}-pruned.onnx") for name in ("a", "b")]


def assert_whole(wanted):
    got = outputs("out.onnx")
    assert any(np.array_equal(got, want) for want in wanted)


def test_a_run_killed_at_any_moment_leaves_a_whole_target(folder):
    wanted = expected()
    chance = random.Random(0)
    for _ in range(KILLS):
        process = replacer("a.onnx", "b.onnx")
        while not Path("out.onnx").exists():
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        process.kill()
        process.wait()
        assert_whole(wanted)
    # What the killed ones left behind goes with the next run.
    from onnxprune import prune

    prune("a.onnx", "out.onnx", rate=0.5, external_data="never")
    assert not [path for path in folder.iterdir() if path.name.startswith(".onnxprune-")]


class Jobs:
    """Jobs of the command line that can be killed."""

    def __init__(self):
        # Threads of torch do not live through a fork.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command, pipe = [sys.executable, "-c", FORKER], subprocess.PIPE
        self.forker = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        assert self.said() == "begun"

    def said(self):
        return self.forker.stdout.readline().strip()

    def run(self, source, target, *, kill_after=None):
        """The exit status of a retraining job; -9 where it was killed in time."""
        print(json.dumps([source, target, *RETRAINING]), file=self.forker.stdin, flush=True)
        job = int(self.said())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(job, signal.SIGKILL)
        print(file=self.forker.stdin, flush=True)
        return int(self.said())


def contents(path):
    """Every weight as it is stored, by name."""
    return {
        tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer
    }


def test_fine_tuning_killed_at_any_moment_leaves_a_whole_target_and_resumes_to_the_undisturbed_result(
    folder,
):
    random_numbers = np.random.default_rng(0)
    np.savez("data.npz", x=normal(200, 64), labels=random_numbers.integers(0, 4, 200))
    jobs, state = Jobs(), Path("state")
    try:
        seconds = {}
        for name in ("a", "b"):
            begun = time.monotonic()
            assert jobs.run(f"{name}.onnx", f"{name}-pruned.onnx") == 0
            seconds[name] = time.monotonic() - begun
            state.unlink()
        wanted = [outputs(f"{name}-pruned.onnx") for name in ("a", "b")]
        assert jobs.run("b.onnx", "out.onnx") == 0
        state.unlink()
        old = {name: Path(name).read_bytes() for name in ("out.onnx", "out.onnx.data")}
        chance, counts = random.Random(0), Counter()
        for _ in range(KILLS):
            for name, content in old.items():
                Path(name).write_bytes(content)
            status = jobs.run("a.onnx", "out.onnx", kill_after=chance.random() * 1.1 * seconds["a"])
            counts[status, state.exists()] += 1
            assert_whole(wanted)
            assert jobs.run("a.onnx", "out.onnx") == 0
            assert contents("out.onnx") == contents("a-pruned.onnx")
            state.unlink()
        print(
            {
                f"ended with {status}, {'a' if kept else 'no'} checkpoint": n
                for (status, kept), n in counts.items()
            }
        )
        assert any(status == -signal.SIGKILL for status, _ in counts)
    finally:
        jobs.forker.kill()
        jobs.forker.wait()
    assert not [path.name for path in folder.iterdir() if path.name.startswith((".onnxprune-", "state"))]


def test_two_jobs_writing_one_target_do_not_mix(folder):
    wanted = expected()
    both = [replacer("a.onnx"), replacer("b.onnx")]
    seen = 0
    deadline = time.monotonic() + 60
    try:
        while seen < 8 and time.monotonic() < deadline:
            # A target read while it is replaced may be the old model with the data of neither.
            try:
                assert_whole(wanted)
                seen += 1
            except (FileNotFoundError, onnx.checker.ValidationError, RuntimeError):
                time.sleep(0.01)
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert_whole(wanted)
    assert seen


@pytest.mark.parametrize("external", ["always", "never"])
def test_a_full_disk_is_one_line_and_the_target_is_as_it_was(folder, external):
    (folder / "out.onnx").write_bytes(b"what was there before")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); from onnxprune import cli; "
        f"cli.main(['a.onnx', 'out.onnx', '--rate', '0.5', '--external-data', '{external}'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "onnxprune: out.onnx cannot be written: File too large\n"
    assert sorted(path.name for path in folder.iterdir()) == ["a.onnx", "b.onnx", "out.onnx"]
    assert (folder / "out.onnx").read_bytes() == b"what was there before"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_job_within_a_second_with_status_130(folder, sent):
    # Half a minute of matrix products, in one call of onnxruntime.
    products = [helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(1500)]
    nodes = [*products, helper.make_node("Identity", ["x1500"], ["y"])]
    model = model_of(nodes, [floats("x0", 512, 512)], [floats("y", 512, 512)], {"w": normal(512, 512) / 50})
    onnx.save(model, "slow.onnx")
    job = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from onnxprune import cli; cli.main()",
            "slow.onnx",
            "out.onnx",
            "--rate",
            "0.5",
        ],
        stderr=subprocess.PIPE,
        # Jobs of a shell's background ignore interrupts, and so would theirs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        text=True,
    )
    while not any(folder.glob(".onnxprune-*")):
        assert job.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    job.send_signal(sent)
    _, err = job.communicate(timeout=20)
    assert job.returncode == 130
    assert err == "onnxprune: interrupted; the output file was not changed\n"
    assert not any(folder.glob(".onnxprune-*"))


def test_a_termination_of_a_forked_process_ends_that_alone():
    code = (
        "import os, signal, time\n"
        "from onnxprune.cli.interrupts import stopping_at_once\n"
        "with stopping_at_once(lambda: None, 1):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        time.sleep(60)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM\n"
        "    time.sleep(1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

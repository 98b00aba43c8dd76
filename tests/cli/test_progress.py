"""Long work shows what it does: a bar with the last evaluation in a terminal, a line a minute in a log, or nothing."""

import io
import logging
import re
import sys
import time

import numpy as np
import onnx
import pytest
from rich.console import Console

from onnxprune import cli
from onnxprune.cli import progress
from onnxprune.cli.progress import Bar, Lines, Remaining, progress_bar
from tests.builders import mlp

TRAINED = ("--rate", "0.5", "--epochs", "3", "--schedule", "one-shot")


@pytest.fixture
def job(tmp_path):
    onnx.save(mlp(), tmp_path / "in.onnx")
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    np.savez(tmp_path / "train.npz", x=x, labels=np.arange(60) % 4)
    return [
        str(tmp_path / "in.onnx"),
        str(tmp_path / "out.onnx"),
        "--data",
        str(tmp_path / "train.npz"),
        *TRAINED,
    ]


def test_a_log_has_lines_with_the_stage_the_losses_and_the_metric(job, capsys, monkeypatch):
    def write(lines, text):
        detail(lines, text)
        print(lines._line(), file=sys.stderr)

    # A line at each evaluation, and not by the clock.
    detail = Lines.detail
    monkeypatch.setattr(Lines, "detail", write)
    cli.main(job)
    lines = capsys.readouterr().err.splitlines()
    shown = [line for line in lines if "validation loss" in line]
    pattern = r"\d\d:\d\d:\d\d fine-tune \d+%, epoch [\d.]+ of 3, (training loss \S+, )?validation loss \S+, top-1 \S+"
    assert len(shown) >= 3 and all(re.match(pattern, line) for line in shown), lines
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_lines_come_by_the_clock(monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    log = io.StringIO()
    lines = Lines(Console(file=log), Remaining())
    lines.stage("prune", 0.25)
    deadline = time.monotonic() + 30
    while "prune 25%" not in log.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    lines.close()
    assert "prune 25%" in log.getvalue()


def test_a_short_job_writes_no_line_and_the_work_is_not_slowed(job, capsys):
    cli.main(job)
    assert "prune" not in capsys.readouterr().err


def test_quiet_prints_nothing_and_writes_everything(job, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    cli.main([*job, "--quiet", "--json", str(tmp_path / "record.json")])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert (tmp_path / "out.onnx").exists() and (tmp_path / "record.json").exists()


def test_quiet_keeps_warnings_and_contradicts_verbose(job, capsys):
    with progress_bar(quiet=True):
        logging.getLogger("onnxprune").warning("the labels look shifted")
        logging.getLogger("onnxprune").info("not this")
    assert capsys.readouterr().err == "Warning: the labels look shifted\n"
    with pytest.raises(SystemExit) as refused:
        cli.main([*job, "--quiet", "--verbose"])
    assert refused.value.code == 2 and "give one of them" in capsys.readouterr().err


def test_a_terminal_has_a_bar_with_the_time_left_and_the_last_evaluation(monkeypatch):
    monkeypatch.setattr(progress, "LEAST_SECONDS", 0.0)
    screen = io.StringIO()
    bar = Bar(Console(file=screen, force_terminal=True, width=160), Remaining(7500))
    bar.stage("prune", 0.25)
    bar.detail("epoch 3 of 12, validation loss 0.5")
    deadline = time.monotonic() + 5
    while "epoch 3 of 12" not in screen.getvalue() and time.monotonic() < deadline:
        time.sleep(0.05)
    bar.close()
    assert re.search(
        r"prune.*25%.*left.*job 2 h 5 min left.*epoch 3 of 12, validation loss 0\.5",
        screen.getvalue(),
        re.DOTALL,
    )


def test_the_time_left_follows_from_the_speed_of_the_stage(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = Lines(Console(file=io.StringIO()), Remaining())
    lines.stage("prune", 0.0)
    now[0] += 300
    lines.stage("prune", 0.25)
    assert lines._line().endswith("prune 25%, 15 min left")
    # Nothing is told for a while: the stage is expected to go on as it did.
    now[0] += 600
    assert lines._line().endswith("prune 25%, 5 min left")
    now[0] += 600
    assert lines._line().endswith("prune 25%, 0 s left")
    lines.close()


def test_what_was_done_before_says_nothing_about_the_speed(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = Lines(Console(file=io.StringIO()), Remaining())
    lines.stage("reconstruct", 0.0)
    now[0] += 3600
    # A training that is resumed.
    lines.stage("fine-tune", 0.5)
    now[0] += 60
    lines.stage("fine-tune", 0.5)
    now[0] += 300
    lines.stage("fine-tune", 0.75)
    assert lines._line().endswith("fine-tune 75%, 5 min left")
    lines.close()


def test_with_time_the_rest_of_the_job_is_told_beside_that_of_the_stage(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = Lines(Console(file=io.StringIO()), Remaining(80 * 60))
    lines.stage("load", 0.0)
    now[0] += 60
    lines.stage("try settings", 0.0)
    assert lines._line().endswith("try settings 0%, job 1 h 19 min left")
    now[0] += 60
    lines.stage("try settings", 0.2)
    assert lines._line().endswith("try settings 20%, 4 min left, job 1 h 18 min left")
    now[0] += 80 * 60
    assert lines._line().endswith("try settings 20%, 0 s left")
    lines.close()


@pytest.mark.parametrize("command", [("prune", "--rate", "0.5"), ("retrain",)], ids=["prune", "retrain"])
def test_the_commands_that_take_a_time_tell_the_rest_of_it(job, capsys, monkeypatch, command):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    cli.main([command[0], *job[:4], *command[1:], "--time", "3s"])
    assert re.search(r"\d+%.*, job [123] s left", capsys.readouterr().err)


@pytest.mark.parametrize(("seconds", "text"), [(12, "12 s"), (400, "7 min"), (7500, "2 h 5 min")])
def test_times_read_as_people_say_them(seconds, text):
    assert progress._time_text(seconds) == text

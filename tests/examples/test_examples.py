"""The examples and the course of models/examples: their commands exist, and each script runs (ONNXPRUNE_LONG=1)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from onnxprune.cli import COMMANDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "models" / "examples"
COURSE = (FOLDER / "README.md").read_text()
SHARED = {"__init__", "parts"}
# What a script prints at its end, as the number that tells whether the pruned model still works, and its least value.
EXAMPLES = {
    "board": (r"board-pruned.onnx: accuracy ([\d.]+)%", 90),
    "detector": (r"detector-pruned.onnx: mAP ([\d.]+)%", 60),
    "image_folder": (r"shapes-pruned.onnx: accuracy ([\d.]+)%", 85),
    "lstm": (r"lstm-fine-tuned.onnx: accuracy ([\d.]+)%", 90),
    "sentence_encoder": (r"encoder-pruned.onnx: neighbor of the same topic ([\d.]+)%", 80),
    "tabular": (r"F1 [\d.]+ -> 0\.(\d\d)", 75),
}


def commands() -> list[list[str]]:
    """The words of each `onnxprune` command in the course."""
    text = COURSE.replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^    (onnxprune .*)$", text, re.MULTILINE)]


def test_every_example_is_in_the_course_and_tried():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - SHARED
    assert scripts == set(EXAMPLES)
    assert all(f"python -m models.examples.{name}" in COURSE for name in scripts)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_of_the_course_exist(words):
    name = words[0] if words[0] in COMMANDS else "prune"
    context = COMMANDS[name].make_context(name, [word for word in words if word not in COMMANDS])
    assert isinstance(context, click.Context)
    models = [word for word in words if word.startswith("models/")]
    assert all((ROOT / model).exists() for model in models)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_its_pruned_model_works(name, tmp_path):
    if not os.environ.get("ONNXPRUNE_LONG"):
        pytest.skip("takes long: set ONNXPRUNE_LONG=1")
    done = subprocess.run(
        [sys.executable, "-m", f"models.examples.{name}", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pattern, least = EXAMPLES[name]
    found = re.search(pattern, done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) >= least

"""`optimum-cli onnxprune` is onnxprune."""

import os
import subprocess
import sys

import onnx
import pytest

from tests.builders import mlp

pytest.importorskip("optimum.commands")
pytestmark = pytest.mark.skipif(not os.environ.get("ONNXPRUNE_LONG"), reason="set ONNXPRUNE_LONG=1")


def test_the_command_line_is_that_of_onnxprune(tmp_path):
    onnx.save(mlp(), tmp_path / "in.onnx")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    words = ["onnxprune", tmp_path / "in.onnx", tmp_path / "out.onnx", "--rate", "0.5", "--format", "dense"]
    subprocess.run([sys.executable, "-m", "onnxprune.plugins.optimum"], env=environment, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "optimum.commands.optimum_cli", *words],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    onnx.checker.check_model(tmp_path / "out.onnx")

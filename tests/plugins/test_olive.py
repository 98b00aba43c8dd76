"""A recipe of Olive prunes by the pass, and goes on with passes of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.builders import mlp

# It imports torchvision, which fits torch or does not.
pytest.importorskip("olive.passes", exc_type=(ImportError, RuntimeError))  # type: ignore[arg-type]
pytestmark = pytest.mark.skipif(not os.environ.get("ONNXPRUNE_LONG"), reason="set ONNXPRUNE_LONG=1")


def run_recipe(folder, passes):
    """The model that a recipe writes."""
    onnx.save(mlp(64, 128), folder / "in.onnx")
    recipe = {
        "input_model": {"type": "OnnxModel", "model_path": str(folder / "in.onnx")},
        "passes": passes,
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
        "no_artifacts": True,
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    package = folder / "package.json"
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    for words in (
        ["onnxprune.plugins.olive", package],
        ["olive", "run", "--config", folder / "recipe.json", "--package-config", package],
    ):
        done = subprocess.run([sys.executable, "-m", *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (model,) = (folder / "out").rglob("*.onnx")
    return onnx.load(model)


def zeros(model):
    matrices = [array for each in model.graph.initializer if (array := numpy_helper.to_array(each)).ndim == 2]
    return sum((array == 0).sum() for array in matrices) / sum(array.size for array in matrices)


def test_the_pass_prunes_to_the_rate(tmp_path):
    model = run_recipe(tmp_path, {"prune": {"type": "OnnxPrune", "rate": 0.9, "remove_dead": False}})
    assert zeros(model) == pytest.approx(0.9, abs=0.01)


def test_zeros_stay_zeros_in_a_quantization_that_follows(tmp_path):
    passes = {
        "prune": {"type": "OnnxPrune", "rate": 0.8, "remove_dead": False},
        "quantize": {"type": "OnnxDynamicQuantization"},
    }
    model = run_recipe(tmp_path, passes)
    assert any("Quant" in node.op_type or "Integer" in node.op_type for node in model.graph.node)
    weights = [numpy_helper.to_array(each) for each in model.graph.initializer]
    integers = [array for array in weights if array.ndim == 2 and array.dtype == np.int8]
    assert integers and sum((array == 0).sum() for array in integers) >= 0.79 * sum(
        array.size for array in integers
    )

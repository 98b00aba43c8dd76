from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import SettingError
from onnxprune.latency.engines import DENSE, Engine, Worker
from onnxprune.latency.race import Entrant, difference, race
from tests.builders import initializer, mlp

X = {"x": np.ones((2, 8), np.float32)}


@pytest.fixture
def files(tmp_path):
    """A model, and one that is nearly the same."""
    model = mlp()
    onnx.save(model, tmp_path / "one.onnx")
    array = initializer(model, "fc2.bias") + 1
    model.graph.initializer[3].CopyFrom(onnx.numpy_helper.from_array(array, "fc2.bias"))
    onnx.save(model, tmp_path / "other.onnx")
    return tmp_path


@pytest.fixture
def worker():
    worker = Worker(DENSE)
    yield worker
    worker.close()


def test_a_wrong_result_of_onnxprune_ends_the_bench_and_one_of_another_engine_is_reported(files, worker):
    other = Worker(DENSE)
    entrants = {"dense": Entrant(worker, files / "one.onnx"), "other": Entrant(other, files / "other.onnx")}
    row = race("model", 0.1, 1, entrants, X, tolerance=1e-5, rounds=2)
    assert "differ from those of" in row.failures["other"] and list(row.ratios) == ["dense"]
    entrants["other"] = Entrant(other, files / "other.onnx", own=True)
    with pytest.raises(SettingError, match="model: the outputs of other differ from those of dense by"):
        race("model", 0.1, 1, entrants, X, tolerance=1e-5, rounds=2)
    other.close()


def test_an_engine_that_refuses_a_model_is_reported_and_the_others_are_timed(files, worker):
    broken = Worker(DENSE)
    (files / "broken.onnx").write_bytes(b"none")
    entrants = {
        "dense": Entrant(worker, files / "one.onnx"),
        "broken": Entrant(broken, files / "broken.onnx"),
    }
    row = race("model", None, 1, entrants, X, tolerance=1e-5, rounds=3)
    assert "broken" in row.failures["broken"]
    assert row.ratios == {"dense": 1.0} and len(row.runs["dense"]) >= 3
    assert row.bytes["dense"] == (files / "one.onnx").stat().st_size
    # Of Linux alone.
    assert (broken.memory().peak or 0) > 0 or not Path("/proc/self/status").exists()
    broken.close()


def test_an_engine_whose_package_is_not_installed_is_missing():
    assert Engine("none", DENSE.opens, "no_such_package").missing() and not DENSE.missing()


def test_outputs_of_different_shapes_differ_infinitely():
    assert difference([np.ones(3)], [np.ones(4)]) == np.inf
    assert difference([np.ones((0, 3))], [np.ones((0, 3))]) == 0
    assert difference([np.array([1.0, 4.0])], [np.array([1.0, 5.0])]) == 0.2

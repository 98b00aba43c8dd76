"""Runs that are checked before the work, and fenced in."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.data.dataset import Dataset
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError
from onnxprune.evaluation import runs
from onnxprune.evaluation.runs import check_runs, patience, random_inputs
from onnxprune.evaluation.sessions import make_session
from tests.builders import mlp, normal
from tests.fuzz.models import MODELS

SPECS = [InputSpec("x", np.dtype(np.float32), (None, 8))]


@pytest.mark.parametrize(
    "labels", [np.arange(50), np.full(50, -1), np.zeros((50, 3)), np.zeros((50, 2), int)]
)
def test_labels_that_do_not_fit_are_refused_before_the_work(labels):
    with pytest.raises(DataError, match=r"the labels of samples .* do not fit the first output"):
        check_runs(
            make_session(mlp(), "a test model"), Dataset.of({"x": normal(50, 8)}, labels, "samples"), SPECS
        )


def test_a_loop_that_may_never_end_on_random_inputs_is_stopped(monkeypatch):
    monkeypatch.setattr(runs, "LOOP_SECONDS", 0.2)
    model = MODELS["loop"]()
    count = next(tensor for tensor in model.graph.initializer if tensor.name == "count")
    count.raw_data = (2**62).to_bytes(8, "little")
    limit = patience(ir.from_proto(model))
    with pytest.raises(DataError, match="had not ended"):
        random_inputs(make_session(model, "a test model"), SPECS, 0, patience=limit)
    assert patience(ir.from_proto(mlp())) is None

"""onnxruntime sessions."""

import numpy as np
import onnx
import pytest

from onnxprune.errors import ModelFileError
from onnxprune.evaluation import sessions
from onnxprune.evaluation.sessions import make_session
from tests.builders import mlp, normal


def test_a_model_that_onnxruntime_refuses_is_named():
    model = mlp()
    model.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ModelFileError, match=r"a test model: .*NoSuchOperator"):
        make_session(onnx.ModelProto.FromString(model.SerializeToString()), "a test model")


@pytest.mark.parametrize("external", [True, False])
def test_the_weights_of_a_large_model_stay_in_its_file_and_outputs_are_the_same(
    external, tmp_path, monkeypatch
):
    onnx.save(mlp(64, 4096), tmp_path / "m.onnx", save_as_external_data=external, location="m.data")
    given = {"x": normal(3, 64)}
    plain = make_session(tmp_path / "m.onnx", "a model").run(None, given)[0]
    monkeypatch.setattr(sessions, "MAPPED_BYTES", 1 << 16)
    mapped = make_session(tmp_path / "m.onnx", "a model")
    assert mapped.get_session_options().get_session_config_entry("session.disable_prepacking") == "1"
    np.testing.assert_allclose(mapped.run(None, given)[0], plain, rtol=1e-5, atol=1e-5)

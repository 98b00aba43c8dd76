"""Channels of residual streams that norms read, through the whole job."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.evaluation.sessions import make_session
from tests.surgery.oracle import weight_of
from tests.surgery.test_residual_streams import decoder

IDS = np.random.default_rng(0).integers(0, 9, (240, 5))


def channels(proto: onnx.ModelProto, **settings: object) -> onnxprune.Result:
    settings = {"calibration_data": {"ids": IDS}, "eval_data": {"ids": IDS[:40]}, **settings}
    return onnxprune.prune(proto, pattern="channel", **settings)


@pytest.mark.parametrize("norm", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_a_compensated_stream_is_without_the_channels_that_it_lost(norm: str, monkeypatch) -> None:
    proto, settings = decoder(norm), {"rate": 0.3, "layer_rate": {"d1": 0.25}, "effort": "fast"}
    small = channels(proto, **settings).model
    assert weight_of(small, "words").shape[1] == weight_of(small, "d1").shape[1] == 12
    monkeypatch.setattr("onnxprune.job.pipeline.remove_dead_units", lambda model: None)
    zeroed = channels(proto, **settings).model
    assert weight_of(zeroed, "words").shape[1] == 16
    outputs = [make_session(model, "a model").run(None, {"ids": IDS})[0] for model in (small, zeroed)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)

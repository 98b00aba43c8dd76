"""Channels of residual streams that norms read, through the whole job: removed where they are chosen, and chosen last
where nothing is measured or trained.
"""

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


@pytest.mark.parametrize("norm", ["LayerNormalization", "written out, Div"])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_without_inputs_a_stream_loses_channels_after_all_others(norm: str, allocation: str) -> None:
    proto = decoder(norm)
    settings = {"calibration_data": None, "allocation": allocation, "max_channel_rate": 0.5}
    spared = channels(proto, rate=0.3, **settings).model
    assert weight_of(spared, "words").shape[1] == 16 and weight_of(spared, "u1").shape[1] < 12
    both = channels(proto, rate=0.6, **settings).model
    assert weight_of(both, "words").shape[1] < 16
    assert weight_of(both, "u1").shape[1] == weight_of(both, "u2").shape[1] == 6


def test_a_stream_that_is_trained_behind_the_cut_loses_as_much_as_others() -> None:
    settings = {"criterion": "magnitude", "allocation": "uniform", "epochs": 1, "data": {"ids": IDS}}
    cut = channels(decoder("LayerNormalization"), rate=0.4, calibration_data=None, **settings).model
    assert weight_of(cut, "words").shape[1] < 16


def test_a_sum_that_no_norm_reads_is_no_stream_of_norms() -> None:
    proto = decoder("", "{y} = Mul({x}, {s})")
    cut = channels(proto, rate=0.4, calibration_data=None, allocation="uniform").model
    assert weight_of(cut, "d1").shape[1] < 16

"""Whole models at half of their weights, by channels. The large ones with ONNXPRUNE_LONG=1."""

from __future__ import annotations

import os

import pytest

from tests.surgery.channel_pruning import prune_channels
from tests.surgery.whole_models import MODELS, MissingPackageError

SMALL = (
    "MobileNet-like",
    "BERT-like",
    "LSTM",
    "SqueezeNet",
    "MobileNet-like, dynamic int8",
    "BERT-like, dynamic int8",
    "ResNet-20, static int8",
    "MobileNet-like, static int8",
    "BERT-like, static int8",
    "BERT-like, dynamic int8, fused",
    "LSTM, dynamic int8",
)


@pytest.mark.parametrize("name", MODELS)
def test_removing_half_of_a_whole_model_in_channels_equals_zeroing_them(name: str) -> None:
    if name not in SMALL and not os.environ.get("ONNXPRUNE_LONG"):
        pytest.skip("takes long: set ONNXPRUNE_LONG=1")
    try:
        row = prune_channels(MODELS[name]())
    except MissingPackageError as missing:
        pytest.skip(str(missing))
    left = row.parameters_after / row.parameters_before
    assert left == pytest.approx(0.5, abs=0.03)
    assert row.multiply_adds_after < 0.6 * row.multiply_adds_before
    assert row.difference <= 1e-5

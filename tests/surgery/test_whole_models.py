"""Whole models at half of their weights, by channels: the same as with the channels at zero. With ONNXPRUNE_LONG=1."""

from __future__ import annotations

import os

import pytest

from tests.benchmarks.channels import measure
from tests.surgery.whole_models import MODELS, MissingPackageError

SMALL = ("MobileNet-like", "BERT-like", "LSTM", "SqueezeNet")


@pytest.mark.parametrize("name", MODELS)
def test_half_of_a_whole_model_goes_in_channels_and_what_stays_is_exact(name: str) -> None:
    if name not in SMALL and not os.environ.get("ONNXPRUNE_LONG"):
        pytest.skip("takes long: set ONNXPRUNE_LONG=1")
    try:
        row = measure(name, MODELS[name](), rounds=0)
    except MissingPackageError as missing:
        pytest.skip(str(missing))
    left = row.parameters_after / row.parameters_before
    assert left == pytest.approx(0.5, abs=0.03)
    assert row.multiply_adds_after < 0.6 * row.multiply_adds_before
    assert row.difference <= 1e-5

"""Whole real models in every format, at three rates; one of them at two rates without ONNXPRUNE_LONG=1."""

from __future__ import annotations

import os

import pytest

from tests.real_models import MODELS, RATES, trials
from tests.surgery.whole_models import MissingPackageError

# Apart by rounding alone; in float16 that is more.
ROUNDING = 1e-3
LONG = bool(os.environ.get("ONNXPRUNE_LONG"))
QUICK = {"MobileNet (torch.onnx, dynamo=False)"}


@pytest.mark.parametrize("name", MODELS)
def test_every_format_gives_the_outputs_of_the_zeroed_model(name: str) -> None:
    if name not in QUICK and not LONG:
        pytest.skip("takes long: set ONNXPRUNE_LONG=1")
    try:
        whole = MODELS[name]()
    except MissingPackageError as missing:
        pytest.skip(str(missing))
    rates = RATES if LONG else RATES[::2]
    assert max(trial.difference for trial in trials(*whole, rates)) <= ROUNDING

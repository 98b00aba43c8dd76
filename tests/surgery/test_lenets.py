"""The trained LeNets, magnitude-pruned: units go, outputs stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.model.weights import find_weights
from tests.surgery.oracle import operate

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("name", ["lenet-5", "lenet-300-100"])
@pytest.mark.parametrize("rate", [0.9, 0.95, 0.98])
def test_a_pruned_lenet_loses_hidden_units_and_keeps_its_outputs(name: str, rate: float) -> None:
    model = ir.from_proto(onnx.load(MODELS / f"{name}.onnx"))
    for weight in find_weights(model).prunable:
        array = weight.array()
        weight.assign(np.where(np.abs(array) > np.quantile(np.abs(array), rate), array, 0))
    _, report = operate(ir.to_proto(model))
    first_dense = next(layer for layer in report.layers if layer.name == "fc1.weight")
    assert first_dense.outputs_after < first_dense.outputs_before
    assert report.layers[-1].outputs_after == 10
    assert report.bytes_removed >= 4 * sum(
        layer.elements_before - layer.elements_after for layer in report.layers
    )

"""Whole models agree with onnxruntime, and train. The large ones with ONNXPRUNE_LONG=1."""

from __future__ import annotations

import os

import onnx_ir as ir
import pytest
import torch

from onnxprune.training.module.graph import to_torch
from tests.surgery.whole_models import MissingPackageError
from tests.training.whole_models import MODELS, difference

SMALL = {name for name in MODELS if "dynamo=False" in name} | {"SqueezeNet", "ShuffleNet"}
AGREEMENT = 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model_gives_the_outputs_of_onnxruntime(name: str) -> None:
    if name not in SMALL and not os.environ.get("ONNXPRUNE_LONG"):
        pytest.skip("takes long: set ONNXPRUNE_LONG=1")
    try:
        whole = MODELS[name]()
    except MissingPackageError as missing:
        pytest.skip(str(missing))
    assert difference(whole) <= AGREEMENT


@pytest.mark.parametrize("name", [name for name in MODELS if "dynamo=False" in name])
def test_the_gradient_of_a_whole_model_equals_finite_differences(name: str) -> None:
    """Along one random direction through all parameters, in double precision."""
    proto, shapes = MODELS[name]()
    module = to_torch(ir.from_proto(proto)).double()
    torch.manual_seed(0)
    x = torch.randint(0, 100, shapes["x"]) if "BERT" in name else torch.randn(shapes["x"]).double()
    parameters = list(module.parameters())
    directions = [torch.randn_like(parameter) for parameter in parameters]

    def loss_at(distance: float) -> torch.Tensor:
        moved = {
            path: parameter + distance * direction
            for (path, parameter), direction in zip(module.named_parameters(), directions, strict=True)
        }
        return torch.func.functional_call(module, moved, (x,))[0].square().mean()

    loss_at(0.0).backward()
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, directions, strict=True) if p.grad is not None)
    distance = 1e-6
    with torch.no_grad():
        wanted = (loss_at(distance) - loss_at(-distance)) / (2 * distance)
    assert float(slope) == pytest.approx(float(wanted), rel=1e-5)

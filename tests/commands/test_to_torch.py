"""`onnxprune.to_torch` takes what a user has: a path, a proto or a model in memory, sparse operators and all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch

import onnxprune
from tests.builders import mlp, normal


def test_a_path_a_proto_and_a_model_in_memory_give_the_same_module(tmp_path: Path) -> None:
    path, x = tmp_path / "mlp.onnx", torch.from_numpy(normal(3, 8))
    onnx.save(mlp(), path)
    results = [onnxprune.to_torch(model)(x)[0] for model in (path, str(path), mlp(), ir.from_proto(mlp()))]
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_file_of_sparse_operators_gives_its_dense_weights_as_parameters() -> None:
    pruned = onnxprune.prune(mlp(64, 64, 64), rate=0.9, format="ops").model
    assert "onnxprune" in {node.domain for node in pruned.graph.node}
    module = onnxprune.to_torch(pruned)
    weight = module.get_parameter("fc1.weight")
    assert weight.shape == (64, 64)
    assert weight.count_nonzero() == 410


def test_a_missing_file_is_named() -> None:
    with pytest.raises(onnxprune.OnnxPruneError, match=r"there is no file missing\.onnx"):
        onnxprune.to_torch("missing.onnx")


def test_importing_onnxprune_does_not_import_torch() -> None:
    subprocess.run(
        [sys.executable, "-c", "import sys, onnxprune; assert 'torch' not in sys.modules"], check=True
    )

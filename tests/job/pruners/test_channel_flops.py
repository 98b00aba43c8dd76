"""`--flops` for channels: the share of all multiply-adds, those of products of two computed values among them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

import onnxprune
from onnxprune.model.costs import multiply_adds
from tests.surgery.attention_graphs import GRAPHS
from tests.surgery.oracle import model
from tests.surgery.torch_networks import Encoder, PackedTransformer
from tests.surgery.whole_models import bert, mobilenet, resnet

Shapes = dict[str, tuple[int, ...]]
Graph = tuple[onnx.ModelProto, Shapes]


def share(graph: Graph, flops: float, **settings: Any) -> tuple[float, str]:
    """The share of the multiply-adds that a job leaves, counted in the model it gives, and its notes."""
    proto, shapes = graph
    settings = {"round_to": 1, "evaluate": False, "format": "dense", **settings}
    settings.setdefault("input_shape", shapes)
    result = onnxprune.prune(proto, pattern="channel", flops=flops, **settings)
    sample = result.report.sample
    dense, left = (sum(multiply_adds(ir.from_proto(one), sample).values()) for one in (proto, result.model))
    assert (result.report.baseline.multiply_adds, result.report.pruned.multiply_adds) == (dense, left)
    return left / dense, " ".join(result.report.notes)


def exported(module: nn.Module, *, dynamo: bool) -> Graph:
    """Long sequences: half of the multiply-adds and more are products of queries and keys, and with values."""
    buffer, shape = io.BytesIO(), (1, 96, 32)
    example = (torch.zeros(shape),)
    torch.manual_seed(0)
    torch.onnx.export(module.eval(), example, buffer, input_names=["x"], opset_version=18, dynamo=dynamo)
    return onnx.load_from_string(buffer.getvalue()), {"x": shape}


class Conformer(nn.Module):
    """Tokens (N, T, 32): a half step of neurons, attention, a gated depthwise convolution over time, neurons again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 128), nn.SiLU(), nn.Linear(128, 32)) for _ in "12"
        )
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2))
        self.open, self.close = nn.Conv1d(32, 64, 1), nn.Conv1d(32, 32, 1)
        self.deep, self.norm = nn.Conv1d(32, 32, 7, padding=3, groups=32), nn.BatchNorm1d(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + 0.5 * self.first(x)
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = nn.functional.glu(self.open(self.norms[1](x).transpose(1, 2)), 1)
        x = x + self.close(nn.functional.silu(self.norm(self.deep(y)))).transpose(1, 2)
        return x + 0.5 * self.last(x)


def conformer() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 32), Conformer(), Conformer(), nn.Linear(32, 5))


NETWORKS: dict[str, Callable[[], Graph]] = {
    "BERT, attention written out": lambda: bert(2, 64, 4, 128),
    "ResNet": resnet,
    "MobileNet": mobilenet,
    **{
        f"{name}, dynamo={dynamo}": lambda make=make, dynamo=dynamo: exported(make(), dynamo=dynamo)
        for name, make in (("encoder", Encoder), ("GPT", PackedTransformer), ("conformer", conformer))
        for dynamo in (False, True)
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_share_is_kept_and_nearly_reached(name: str) -> None:
    left, notes = share(NETWORKS[name](), 0.5)
    assert 0.47 < left <= 0.5, notes


# The caller holds the past of each head, so that nothing can go.
STAYS = "MultiHeadAttention with a past"


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != STAYS])
def test_fused_attention_comes_as_near_as_whole_heads_allow_or_says_what_is_left(name: str) -> None:
    left, notes = share(GRAPHS[name](), 0.5)
    said = re.search(r"([\d.]+)% of the multiply-adds are left, more than", notes)
    if said is None:
        # Heads of a group go together, and of all groups together.
        assert 0.25 < left <= 0.5
    else:
        assert left > 0.5
        assert float(said[1]) == pytest.approx(100 * left, abs=0.051)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_of_too_much_is_told(name: str) -> None:
    left, notes = share(NETWORKS[name](), 0.02)
    said = re.search(r"([\d.]+)% of the multiply-adds are left, more than --flops 0.02", notes)
    # ResNet gets there: an eighth of the inputs and of the outputs of each layer.
    assert (said is None) == (left <= 0.02) == (name == "ResNet")
    assert said is None or float(said[1]) == pytest.approx(100 * left, abs=0.051)


def mixed() -> Graph:
    """Channels on the rows of a product: its weight loses nothing when they go, its multiply-adds do."""
    rng = np.random.default_rng(0)
    weights = {
        name: (rng.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32)
        for name, shape in {"a": (16, 40), "tokens": (24, 24), "b": (40, 8)}.items()
    }
    text = """(float[1,24,16] x) => (float[1,24,8] y) {
        h = MatMul(x, a) t = Transpose<perm=[0,2,1]>(h) m = MatMul(t, tokens) r = Relu(m)
        u = Transpose<perm=[0,2,1]>(r) y = MatMul(u, b)}"""
    return model(text, **weights), {"x": (1, 24, 16)}


def test_products_shrink_with_channels_that_are_rows() -> None:
    left, _ = share(mixed(), 0.5)
    # Of 40 channels, each with 24 * (16 + 24 + 8) multiply-adds.
    assert left == 20 / 40


def test_excluded_weights_still_multiply_fewer_rows() -> None:
    left, _ = share(mixed(), 0.5, exclude=["tokens"])
    assert left == 20 / 40

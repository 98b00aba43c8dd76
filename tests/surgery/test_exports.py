"""Networks as torch.onnx writes them: nearly all weights are in free groups, and removing channels equals zeroing them.

Both exporters with ONNXPRUNE_LONG=1; otherwise one each.
"""

from __future__ import annotations

import os

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from tests.surgery import torch_networks
from tests.surgery.channel_pruning import both_ways, free_share, prune_channels
from tests.training.networks import Bert, Recurrent, VisionTransformer, exported

TOKENS = torch.randn(2, 8, 32)
# A network, an input, the open axes, and the exporter that is tried without ONNXPRUNE_LONG.
NETWORKS: dict[str, tuple[type[nn.Module], Tensor, tuple[int, ...], bool]] = {
    "YOLO-like": (torch_networks.Yolo, torch.randn(2, 3, 64, 64), (0,), False),
    "states of zeros": (Recurrent, torch.randn(2, 7, 12), (0,), True),
    "computed states": (torch_networks.StatefulRecurrent, torch.randn(2, 7, 12), (0,), True),
    "GRU, time first": (torch_networks.Gru, torch.randn(7, 2, 12), (1,), True),
    "nn.MultiheadAttention": (torch_networks.MultiHead, TOKENS, (0,), False),
    "encoder and decoder": (torch_networks.Encoder, TOKENS, (0,), True),
    "packed projections": (torch_networks.PackedTransformer, TOKENS, (0, 1), False),
    "grouped queries": (torch_networks.GroupedQueries, TOKENS, (0,), False),
    "windows": (torch_networks.Windows, torch.randn(2, 3, 30, 30), (0,), True),
    "GroupNorm": (torch_networks.UNet, torch.randn(2, 3, 32, 32), (0,), False),
    "BERT": (Bert, torch.arange(16).reshape(2, 8), (0,), False),
    "ViT": (VisionTransformer, torch.randn(2, 3, 32, 32), (0,), True),
}
# Untrained, the norms behind its sums share a scale of ones, which cannot be 0 for one of them: the stream stays, and
# the patches that write it are much of a ViT this narrow.
SHARES = {"ViT": 0.75}


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_nearly_all_weights_of_an_export_are_in_channels_that_can_go(name: str, dynamo: bool) -> None:
    network, example, axes, short = NETWORKS[name]
    if dynamo != short and not os.environ.get("ONNXPRUNE_LONG"):
        pytest.skip("takes long: set ONNXPRUNE_LONG=1")
    torch.manual_seed(0)
    proto = exported(network(), example, dynamo=dynamo, axes=axes)
    share, stuck = free_share(ir.from_proto(proto))
    assert share >= SHARES.get(name, 0.9), stuck
    row = prune_channels((proto, {"x": tuple(example.shape)}), 0.4)
    assert row.difference <= 1e-5
    assert row.parameters_after < 0.7 * row.parameters_before


@pytest.mark.parametrize("dynamo", [False, True])
def test_residual_streams_pass_windows_and_pools_of_channels_that_are_last_in_memory(dynamo: bool) -> None:
    network, example, axes, _ = NETWORKS["windows"]
    proto = exported(_trained(network()), example, dynamo=dynamo, axes=axes)
    assert both_ways(ir.from_proto(proto)) > 0.8, "pixels, and what the output layer gives, stay"
    row = prune_channels((proto, {"x": tuple(example.shape)}), 0.4)
    assert row.difference <= 1e-5
    assert {node.op_type for node in row.model.graph.node}.isdisjoint({"Gather", "Range"}) or not dynamo


@pytest.mark.parametrize("name", ["BERT", "ViT"])
def test_residual_streams_of_exports_before_layer_normalization_lose_channels(name: str) -> None:
    network, example, axes, _ = NETWORKS[name]
    proto = exported(_trained(network()), example, dynamo=False, axes=axes, opset=14)
    assert "LayerNormalization" not in {node.op_type for node in proto.graph.node}
    assert both_ways(ir.from_proto(proto)) > 0.6, "pixels, and what the output layer gives, stay"
    row = prune_channels((proto, {"x": tuple(example.shape)}), 0.4)
    assert row.difference <= 1e-5 and row.model.opset_import[0].version == 14


def _trained(module: nn.Module) -> nn.Module:
    """As after training: no two parameters are alike."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    return module

"""Writing the networks of this folder as ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import nn

OPSET = 20


def export(net: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Write `net` as ONNX, weights inline: `input` (N, *input_shape) -> `logits` (N, classes), float32."""
    export_on(net, torch.rand(2, *input_shape), path)


def export_on(net: nn.Module, example: torch.Tensor, path: Path, output: str = "logits") -> None:
    """Write `net` as ONNX, weights inline: `input`, of the example's shape and type but for the batch, -> `output`."""
    program = torch.onnx.export(
        net,
        (example,),
        dynamic_shapes=({0: torch.export.Dim("N")},),
        input_names=["input"],
        output_names=[output],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    for part in _parts(program.model.graph):
        part.metadata_props.clear()
    ir.save(program.model, path)
    onnx.checker.check_model(path, full_check=True)


def _parts(graph: ir.Graph) -> Iterator[ir.Graph | ir.Node | ir.Value]:
    """All parts of a graph with metadata of the exporter, which contains file names of the machine that ran it."""
    yield graph
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield node
        yield from node.outputs

"""The layers suite: single operators of common networks, dense and sparse, at several densities."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnxprune.latency import integers
from onnxprune.latency.engines import DENSE, KERNELS, OTHERS, Engine, Feeds, Worker
from onnxprune.latency.race import Entrant, Row, race
from onnxprune.model.weights import find_weights
from onnxprune.pruning.allocation import Pool
from onnxprune.pruning.blocks import BlockPattern
from onnxprune.pruning.masks import apply_masks, make_masks
from onnxprune.sparse.rewrite import to_ops

DENSITIES = (0.02, 0.04, 0.10, 0.20, 0.30)
# Relative to the largest output; the kernels add in another order than dense onnxruntime.
TOLERANCE = 1e-5
OPSET = 17


@dataclass(frozen=True)
class Layer:
    """One operator with a weight: `x` and `weight` are shapes, `attributes` those of the operator."""

    name: str
    op_type: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    attributes: tuple[tuple[str, int | list[int]], ...] = ()

    def at(self, batch: int) -> Layer:
        """The layer with a batch size."""
        if batch == 1:
            return self
        return replace(self, name=f"{self.name}, batch {batch}", x=(batch * self.x[0], *self.x[1:]))


def _conv(outputs: int, inputs: int, kernel: int, side: int, stride: int = 1) -> Layer:
    return Layer(
        f"Conv {kernel}x{kernel} {inputs}->{outputs} at {side}x{side}"
        + (f" /{stride}" if stride > 1 else ""),
        "Conv",
        (1, inputs, side, side),
        (outputs, inputs, kernel, kernel),
        (("pads", [kernel // 2] * 4), ("strides", [stride] * 2)),
    )


def _gemm(inputs: int, outputs: int) -> Layer:
    return Layer(f"Gemm {inputs}->{outputs}", "Gemm", (1, inputs), (outputs, inputs), (("transB", 1),))


def _matmul(rows: int, inputs: int, outputs: int) -> Layer:
    return Layer(f"MatMul {rows}x{inputs}x{outputs}", "MatMul", (rows, inputs), (inputs, outputs))


# The layers that take most of the time in ResNet-50, VGG-16, BERT and AlexNet.
LAYERS = (
    _matmul(128, 768, 3072),
    _matmul(128, 3072, 768),
    _matmul(128, 768, 768),
    _conv(64, 64, 3, 224),
    _conv(64, 64, 3, 56),
    _conv(128, 128, 3, 56),
    _conv(128, 128, 3, 28),
    _conv(256, 256, 3, 28),
    _conv(512, 512, 3, 14),
    _conv(512, 512, 3, 7),
    _conv(64, 256, 1, 56),
    _conv(256, 64, 1, 56),
    _conv(256, 1024, 1, 14),
    _conv(1024, 256, 1, 14),
    _conv(2048, 512, 1, 7),
    _conv(256, 128, 3, 28, stride=2),
    _gemm(4096, 4096),
    _gemm(25088, 4096),
)


def bench_layers(
    layers: Iterable[Layer] = LAYERS,
    densities: Sequence[float] = DENSITIES,
    threads: Sequence[int] = (1, 2),
    engines: Sequence[Engine] = (KERNELS, *OTHERS),
    blocks: BlockPattern | None = None,
    int8: bool = False,
) -> Iterator[Row]:
    """Time each layer at each density and number of threads: dense onnxruntime, sparse kernels, and other engines.

    Weights are zero at random, in whole blocks of a pattern if one is given. With `int8`, layers also run quantized, as
    operators of integers alone, from uint8 to uint8.

    The instruction set is the best of the machine, or that of the environment variable ONNXPRUNE_ISA.

    Raises:
        SettingError: the sparse output of a layer is wrong.
    """
    workers = {engine: Worker(engine) for engine in (DENSE, *engines) if not engine.missing()}
    int8_workers = integers.workers(workers) if int8 else {}
    try:
        for layer in layers:
            for density in densities:
                with tempfile.TemporaryDirectory() as folder:
                    model = layer_model(layer, density, blocks)
                    entrants, feeds = _floats(layer, model, workers, Path(folder))
                    added = _integers(model, feeds, int8_workers, Path(folder)) if int8 else {}
                    for count in threads:
                        yield race(
                            layer.name,
                            density,
                            count,
                            entrants | added,
                            feeds,
                            tolerance=TOLERANCE,
                            references=integers.references(added),
                        )
    finally:
        for worker in (*workers.values(), *int8_workers.values()):
            worker.close()


def _floats(
    layer: Layer, model: onnx.ModelProto, workers: Mapping[Engine, Worker], folder: Path
) -> tuple[dict[str, Entrant], Feeds]:
    dense, sparse = folder / "dense.onnx", folder / "sparse.onnx"
    onnx.save(model, dense)
    onnx.save(_sparse(model), sparse)
    feeds = {"x": np.random.default_rng(1).standard_normal(layer.x, dtype=np.float32)}
    entrants = {
        engine.name: Entrant(worker, sparse if engine.own else dense, engine.own)
        for engine, worker in workers.items()
    }
    return entrants, feeds


def _integers(
    model: onnx.ModelProto, feeds: Feeds, workers: Mapping[Engine, Worker], folder: Path
) -> dict[str, Entrant]:
    paths = folder / "dense-int8.onnx", folder / "sparse-int8.onnx"
    for made, path in zip(integers.quantize(ir.from_proto(model), feeds), paths, strict=True):
        onnx.save(integers.bare(ir.to_proto(made), "x"), path)
    x = np.clip(np.rint(feeds["x"] * 32 + 128), 0, 255).astype(np.uint8)
    return integers.entrants(workers, *paths, {"x": x})


def layer_model(layer: Layer, density: float, blocks: BlockPattern | None) -> onnx.ModelProto:
    """A model of one layer from x to y with weights of this density; with all where `blocks` are pruned later."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(layer.weight, dtype=np.float32)
    if blocks is None:
        weight[rng.random(layer.weight, dtype=np.float32) >= density] = 0
    attributes: dict[str, Any] = dict(layer.attributes)
    node = helper.make_node(layer.op_type, ["x", "w"], ["y"], "layer", **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    if blocks is None:
        return model
    found = ir.from_proto(model)
    weights = find_weights(found).prunable
    apply_masks(weights, make_masks([Pool(weights, 1 - density, None)], rng, blocks=blocks))
    return ir.to_proto(found)


def _sparse(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    to_ops(graph, find_weights(graph).prunable)
    return ir.to_proto(graph)


def output_shape(layer: Layer) -> tuple[int, ...]:
    """The shape of the layer's output."""
    attributes: dict[str, Any] = dict(layer.attributes)
    if layer.op_type != "Conv":
        return (*layer.x[:-1], layer.weight[0 if attributes.get("transB") else -1])
    sides = [
        (side + 2 * pad - kernel) // stride + 1
        for side, kernel, pad, stride in zip(
            layer.x[2:],
            layer.weight[2:],
            attributes.get("pads", [0] * 4),
            attributes.get("strides", [1] * 2),
            strict=False,
        )
    ]
    return (layer.x[0], layer.weight[0], *sides)

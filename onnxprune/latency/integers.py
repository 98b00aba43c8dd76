"""The int8 rows of a suite: the model quantized by onnxruntime, dense, and with its sparse nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import helper

from onnxprune.errors import ModelFileError
from onnxprune.latency.engines import DENSE, Engine, Feeds, Worker
from onnxprune.latency.race import Entrant
from onnxprune.model.weights import find_weights
from onnxprune.quantization.ranges import measured
from onnxprune.quantization.static import quantized
from onnxprune.sparse.fold import fold_all
from onnxprune.sparse.rewrite import to_ops

DENSE_INT8 = f"{DENSE.name} int8"
# Of the largest output: other engines round otherwise from layer to layer.
OTHERS_TOLERANCE = 0.2


def quantize(model: ir.Model, feeds: Feeds) -> tuple[ir.Model, ir.Model]:
    """The model by `quantize_static`, per channel, with the ranges of these inputs; dense, and stored sparse.

    BatchNormalization and what else follows weights is folded before, as in a job.
    """
    folded = model.clone()
    fold_all(folded, find_weights(folded).prunable)
    dense = quantized(folded, measured(folded, [feeds], "minmax"))
    sparse = dense.clone()
    to_ops(sparse, find_weights(sparse).prunable)
    return dense, sparse


def bare(model: onnx.ModelProto, x: str) -> onnx.ModelProto:
    """The only node of a quantized model between QuantizeLinear and DequantizeLinear, with uint8 input and output.

    Raises:
        ModelFileError: there is another number of nodes.
    """
    ends = ("QuantizeLinear", "DequantizeLinear")
    inner = [node for node in model.graph.node if node.op_type not in ends]
    if len(inner) != 1:
        raise ModelFileError(f"onnxruntime quantizes the layer to {len(inner)} nodes, not to one")
    (node,) = inner
    constants = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
    element_type, read = onnx.TensorProto.UINT8, node.input[0]
    node.input[0] = x
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info(x, element_type, None)],
        [helper.make_tensor_value_info(node.output[0], element_type, None)],
        [tensor for tensor in constants if tensor.name != read],
    )
    return helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )


def workers(engines: Mapping[Engine, Worker]) -> dict[Engine, Worker]:
    """Processes of their own for the same engines: one holds one model."""
    return {engine: Worker(engine) for engine in engines}


def entrants(
    engines: Mapping[Engine, Worker], dense: Path, sparse: Path, feeds: Feeds | None = None
) -> dict[str, Entrant]:
    """Each engine on the quantized model, which is sparse for onnxprune's own. `feeds`: where they are not the race's.

    A wrong result is told, and stops nothing: without VNNI, onnxruntime's own kernels may saturate.
    """
    return {
        f"{engine.name} int8": Entrant(
            worker,
            sparse if engine.own else dense,
            feeds=feeds,
            tolerance=None if engine.own or engine is DENSE else OTHERS_TOLERANCE,
        )
        for engine, worker in engines.items()
    }


def references(names: Mapping[str, Entrant]) -> dict[str, str]:
    """What the outputs of int8 entrants are compared with: those of dense int8."""
    return dict.fromkeys(names, DENSE_INT8)

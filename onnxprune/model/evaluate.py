"""Running nodes in onnxruntime, so that constants are computed with the exact semantics of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.model.slots import MICROSOFT

ERRORS_ONLY = 4  # onnxruntime's log severity


def run_nodes(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    model: ir.Model,
    initializers: Sequence[onnx.TensorProto] = (),
) -> list[np.ndarray] | None:
    """The named outputs of nodes in topological order; None where onnxruntime cannot run them.

    `model` has the opsets and functions. Feeds are not copied; initializers are for values that an operator must know
    when the session is made, and for types that cannot be fed.
    """
    try:
        infos = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ]
        made = [onnx.helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = onnx.helper.make_graph(nodes, "nodes", infos, made, initializers)
        opsets = [onnx.helper.make_opsetid(*pair) for pair in model.graph.opset_imports.items()]
        own = {node.domain for node in nodes} - {"", "ai.onnx", MICROSOFT}
        functions = [ir.to_proto(function) for function in model.functions.values()] if own else []
        whole = onnx.helper.make_model(
            graph, ir_version=model.ir_version, opset_imports=opsets, functions=functions
        )
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(array) for array in session.run(None, dict(feeds))]
    except Exception:
        # onnxruntime has no kernel for a type or operator; its exceptions share no base class of their own.
        return None

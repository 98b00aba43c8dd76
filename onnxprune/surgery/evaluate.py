"""Running one node in onnxruntime, so that constants are folded with the exact semantics of the model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

ERRORS_ONLY = 4  # onnxruntime's log severity


def evaluate_node(node: ir.Node, inputs: list[np.ndarray | None], model: ir.Model) -> np.ndarray | None:
    """The first output of `node` for its inputs (None for an absent one); None where onnxruntime cannot run it."""
    proto = ir.to_proto(node)
    feeds = {}
    for index, array in enumerate(inputs):
        proto.input[index] = "" if array is None else f"input{index}"
        if array is not None:
            feeds[f"input{index}"] = array
    try:
        infos = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ]
        output = onnx.helper.make_empty_tensor_value_info(proto.output[0])
        graph = onnx.helper.make_graph([proto], "one_node", infos, [output])
        opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.graph.opset_imports.items()]
        one = onnx.helper.make_model(graph, ir_version=model.ir_version, opset_imports=opsets)
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(one.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (result,) = session.run(None, feeds)
    except Exception:
        # onnxruntime has no kernel for this type or operator; its exceptions share no base class of their own.
        return None
    return np.asarray(result)

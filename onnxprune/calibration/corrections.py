"""Bias and norm correction: constants that compensate the change of means and variances by pruning."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.moments import Moments, check_finite
from onnxprune.calibration.segments import Tensors
from onnxprune.calibration.walk import Visit
from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.model.operands import operand
from onnxprune.model.weights import Weight


def bias_of(weight: Weight) -> ir.Value | None:
    """The constant bias of a layer, if no other node reads it; else None.

    It is the last input of a Conv or Gemm, or the other operand of the only Add after a MatMul.
    """
    use = weight.uses[0]
    node, bias = use.node, None
    if node.op_type == "Conv" or (node.op_type == "Gemm" and use.index == 1 and _is_plain(node)):
        bias = operand(node, 2)
    elif node.op_type == "MatMul" and use.index == 1 and len(weight.shape) == 2:
        readers = list(node.outputs[0].uses())
        if len(readers) == 1 and readers[0].node.op_type == "Add" and not node.outputs[0].is_graph_output():
            bias = readers[0].node.inputs[1 - readers[0].idx]
    tensor = constant_tensor(bias)
    if bias is None or tensor is None or len(weight.uses) > 1 or len(list(bias.uses())) > 1:
        return None
    return bias if tuple(tensor.shape.numpy()) == (weight.shape[weight.out_axis],) else None


def shift_bias(
    bias: ir.Value, dense_bias: ir.TensorProtocol, moments: Moments, dense: np.ndarray, pruned: np.ndarray
) -> None:
    """Restore the means of a layer's outputs in the dense model; weights are (groups, outputs, inputs)."""
    shift = _outputs(dense, moments.dense_mean) - _outputs(pruned, moments.mean)
    array = dense_bias.numpy()
    set_constant(bias, (array + shift.reshape(array.shape)).astype(array.dtype), dense_bias.dtype)


def correct_norm(visit: Visit, dense: Tensors) -> None:
    """Change the mean and variance of a BatchNormalization like those of its input have changed, channel by channel.

    Its outputs then have the means and variances of the dense model.
    """
    data, mean, variance = visit.node.inputs[0], visit.node.inputs[3], visit.node.inputs[4]
    if data is None or mean is None or variance is None or not {mean, variance} <= dense.keys():
        return
    before, after = (
        np.concatenate([np.moveaxis(part, 1, 0).reshape(part.shape[1], -1) for part in parts], axis=1)
        for parts in zip(*visit.pairs(data), strict=True)
    )
    spread = before.std(1, dtype=np.float64)
    growth = np.divide(after.std(1, dtype=np.float64), spread, out=np.ones_like(spread), where=spread > 0)
    check_finite((spread, growth), visit.node)
    shift = after.mean(1, dtype=np.float64) - growth * before.mean(1, dtype=np.float64)
    for value, array in (
        (mean, growth * dense[mean].numpy() + shift),
        (variance, growth**2 * dense[variance].numpy()),
    ):
        set_constant(value, array.astype(dense[value].numpy().dtype), dense[value].dtype)


def _outputs(weights: np.ndarray, means: np.ndarray) -> np.ndarray:
    return np.einsum("goi,gi->go", weights, np.broadcast_to(means, (len(weights), means.shape[1])))


def _is_plain(node: ir.Node) -> bool:
    return node.attributes.get_float("alpha", 1.0) == 1 and node.attributes.get_float("beta", 1.0) == 1

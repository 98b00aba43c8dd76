"""Corrections of a model that is quantized without training: equalized channels, and biases that restore means."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.corrections import bias_of
from onnxprune.job.quantized_outputs import Inputs
from onnxprune.model.constants import constant_tensor, constants, put_tensor, set_constant
from onnxprune.model.shapes import infer_shapes
from onnxprune.model.weights import Weight, find_weights
from onnxprune.quantization.equalization import equalize, regions
from onnxprune.quantization.probes import Probe, place

# The axis of channels of what Conv and Gemm give.
CHANNELS = 1

Kept = Mapping[ir.Value, ir.TensorProtocol]


def tensors(model: ir.Model) -> Kept:
    """The constants of a model as they are now, for `restore`."""
    found = {value: constant_tensor(value) for value in constants(model)}
    return {value: tensor for value, tensor in found.items() if tensor is not None}


def restore(kept: Kept) -> None:
    """Put constants back."""
    for value, tensor in kept.items():
        if constant_tensor(value) is not tensor:
            put_tensor(value, tensor)


def equalize_channels(model: ir.Model, inputs: Inputs) -> int:
    """Make the ranges of channels alike in place, by what they are on the inputs; the number of regions changed."""
    first = next(inputs.batches())
    shapes = infer_shapes(model, {name: array.shape for name, array in first.feeds().items()})
    found = [
        (region, [Probe(value.name or "", len(shapes[value]), CHANNELS) for value in region.rounded()])
        for region in regions(model, shapes)
        if all(value in shapes and len(shapes[value]) > CHANNELS for value in region.rounded())
    ]
    probes = [probe for _, each in found for probe in each]
    largest = dict(zip(probes, inputs.probe(model, probes, "largest"), strict=True)) if probes else {}
    return sum(
        equalize(region, np.max([largest[probe] for probe in each], axis=0)) for region, each in found if each
    )


class Means:
    """The means of what layers give in floats, and biases that restore them in the quantized model."""

    def __init__(self, model: ir.Model, inputs: Inputs, excluded: Collection[ir.Node]):
        first = next(inputs.batches())
        shapes = infer_shapes(model, {name: array.shape for name, array in first.feeds().items()})
        self._inputs = inputs
        self._layers: dict[ir.Value, tuple[ir.Value, Probe]] = {}
        for weight in find_weights(model).prunable:
            node = weight.uses[0].node
            bias = bias_of(weight)
            if bias is None or node in excluded or node.graph is not model.graph:
                continue
            value = _biased(weight, node)
            if (shape := shapes.get(value)) is not None:
                axis = CHANNELS if node.op_type == "Conv" else len(shape) - 1
                self._layers[bias] = value, Probe(value.name or "", len(shape), axis)
        probes = [probe for _, probe in self._layers.values()]
        self._means = inputs.probe(model, probes, "mean") if probes else []

    def restore(self, made: ir.Model) -> bool:
        """Shift the biases of the model in floats by what `made`, the simulated model, misses; whether there are any.

        All are shifted at once, each as if those before it were not, so that it takes several rounds.
        """
        probes = {
            bias: probe._replace(name=name)
            for bias, (value, probe) in self._layers.items()
            if (name := place(value, made)) is not None
        }
        if not probes:
            return False
        rounded = dict(zip(probes, self._inputs.probe(made, list(probes.values()), "mean"), strict=True))
        for bias, whole in zip(self._layers, self._means, strict=True):
            tensor = constant_tensor(bias)
            if bias in rounded and tensor is not None:
                array = tensor.numpy()
                shifted = array + (whole - rounded[bias]).reshape(array.shape)
                set_constant(bias, shifted.astype(array.dtype), tensor.dtype)
        return True


def _biased(weight: Weight, node: ir.Node) -> ir.Value:
    """What a layer gives with its bias."""
    output = node.outputs[0]
    return next(iter(output.uses())).node.outputs[0] if node.op_type == "MatMul" else output

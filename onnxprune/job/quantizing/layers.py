"""Corrections of a model that is quantized without training: equalized channels, and biases that restore means."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxprune.calibration.corrections import bias_of
from onnxprune.job.quantizing.outputs import Inputs
from onnxprune.model.constants import constant_tensor, constants, put_tensor, set_constant
from onnxprune.model.shapes.inference import Shape, infer_shapes
from onnxprune.model.weights import find_weights
from onnxprune.quantization.equalization import equalize, regions
from onnxprune.quantization.probes import Probe, with_ranges, with_rounding_errors

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
    shapes = _shapes(model, inputs)
    found = [
        region
        for region in regions(model, shapes)
        if all(value in shapes and len(shapes[value]) > CHANNELS for value in region.values)
    ]
    probes = [Probe(value, len(shapes[value]), CHANNELS) for region in found for value in region.values]
    if not probes:
        return 0
    measured = inputs.probe(with_ranges(model, probes), "largest")
    largest = {probe.value: each for probe, each in zip(probes, measured, strict=True)}
    return sum(equalize(region, largest) for region in found)


def correct_biases(model: ir.Model, made: ir.Model, inputs: Inputs) -> bool:
    """Shift biases in place by the mean of what rounding changes in their layers; whether there are any.

    `made`: the simulated model. What is measured is each layer's own error, not those of the layers before it, so that
    all biases can be shifted at once.
    """
    shapes = _shapes(model, inputs)
    probes: dict[ir.Value, Probe] = {}
    for weight in find_weights(model).prunable:
        use, bias = weight.uses[0], bias_of(weight)
        shape = shapes.get(use.node.outputs[0])
        if bias is not None and shape is not None and use.node.graph is model.graph and use.index == 1:
            axis = CHANNELS if use.node.op_type == "Conv" else len(shape) - 1
            probes[bias] = Probe(use.node.outputs[0], len(shape), axis)
    probed, rounded = with_rounding_errors(model, made, list(probes.values()))
    if not rounded:
        return False
    errors = dict(zip(rounded, inputs.probe(probed, "mean"), strict=True))
    for bias, probe in probes.items():
        tensor = constant_tensor(bias)
        if probe in errors and tensor is not None:
            array = tensor.numpy()
            shifted = array - errors[probe].reshape(array.shape)
            set_constant(bias, shifted.astype(array.dtype), tensor.dtype)
    return True


def _shapes(model: ir.Model, inputs: Inputs) -> dict[ir.Value, Shape]:
    first = next(inputs.batches())
    return infer_shapes(model, {name: array.shape for name, array in first.feeds().items()})

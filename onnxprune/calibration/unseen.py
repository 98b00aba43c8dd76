"""Layers that score more classes than there are samples to fit them to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.segments import compared
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constant_tensor, constants_read
from onnxprune.model.memory import VIEWS
from onnxprune.model.operands import operand
from onnxprune.model.shapes.inference import Shape
from onnxprune.model.slots import domain_of
from onnxprune.model.weights import Weight

# Between a layer and the scores that it gives: the scores in another shape, and a bias.
_PASSED = VIEWS | {"Add"}


def unseen(model: ir.Model, weights: Iterable[Weight], samples: int) -> Iterator[Weight]:
    """The weights of layers whose outputs are those of the model, (N, C), with C more than the number of samples.

    Most of these classes are in no sample. What is fitted to the samples takes the weights of the others for useless.
    """
    makers = {_maker(value) for value in compared(model)}
    for weight in weights:
        node = weight.uses[0].node
        if node in makers and Blocks.fit(weight):
            groups, outputs, _ = Blocks.of(weight).shape
            if groups == 1 and outputs > samples:
                yield weight


def constants_of(weights: Iterable[Weight]) -> frozenset[ir.Value]:
    """The constants that the layers of these weights read: the weights and biases."""
    return frozenset(constants_read(use.node for weight in weights for use in weight.uses))


@dataclass(frozen=True)
class Places:
    """What a layer reads the mean of over all places of an image: `value`, with channels at `axis`, read by `node`.

    The places of a few hundred images show what channels go together far better than the few hundred means.
    """

    node: ir.Node
    value: ir.Value
    axis: int

    def inputs(self, array: np.ndarray, blocks: Blocks) -> np.ndarray:
        """Each place as a sample of its own: the value in the shape of the layer's data operand."""
        channels = blocks.shape[2]
        places = np.moveaxis(array, self.axis, -1).reshape(-1, channels)
        return places.reshape(-1, channels, *[1] * (len(blocks.moved) - 2)) if _is_conv(blocks) else places


def places_before(weight: Weight, shapes: Mapping[ir.Value, Shape]) -> Places | None:
    """The places whose mean a layer reads, (N, C); None where it reads anything else.

    GlobalAveragePool (ONNX 1), AveragePool (ONNX 22) of whole images, ReduceMean (ONNX 18) over all axes but two.
    """
    blocks = Blocks.of(weight)
    pointwise = all(size == 1 for size in blocks.moved[2:])
    if blocks.shape[0] != 1 or not (pointwise if _is_conv(blocks) else blocks.index == 1):
        return None
    node = blocks.data.producer()
    while node is not None and not domain_of(node) and node.op_type in VIEWS and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    value = None if node is None or domain_of(node) else operand(node, 0)
    shape = None if value is None else shapes.get(value)
    if node is None or value is None or shape is None or len(shape) < 3:
        return None
    axis = _channels(node, shape)
    return Places(node, value, axis) if axis is not None and shape[axis] == blocks.shape[2] else None


def _channels(node: ir.Node, shape: Shape) -> int | None:
    """The axis of channels, of a node that takes the mean over all others but the first; else None."""
    if node.op_type == "GlobalAveragePool":
        return 1
    if node.op_type == "AveragePool":
        window = node.attributes.get_ints("kernel_shape", ())
        padded = any(node.attributes.get_ints("pads", ()))
        return 1 if tuple(window) == tuple(shape[2:]) and not padded else None
    if node.op_type != "ReduceMean":
        return None
    given = constant_tensor(operand(node, 1))
    axes = node.attributes.get_ints("axes", ()) if given is None else given.numpy().tolist()
    left = set(range(1, len(shape))) - {axis % len(shape) for axis in axes}
    return left.pop() if len(left) == 1 and all(axis % len(shape) for axis in axes) else None


def _is_conv(blocks: Blocks) -> bool:
    return blocks.node.op_type == "Conv"


def _maker(scores: ir.Value) -> ir.Node | None:
    """The layer that gives scores of classes, one for each sample."""
    if scores.shape is None or len(scores.shape) != 2:
        return None
    node = scores.producer()
    while node is not None and not domain_of(node) and node.op_type in _PASSED:
        computed = [value for value in node.inputs if value is not None and constant_tensor(value) is None]
        node = computed[0].producer() if len(computed) == 1 else None
    return node

"""Layers that score more classes than there are samples to fit them to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from onnxprune.calibration.segments import compared
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constant_tensor
from onnxprune.model.memory import VIEWS
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
    operands = (value for weight in weights for use in weight.uses for value in use.node.inputs)
    return frozenset(value for value in operands if value is not None and constant_tensor(value) is not None)


def _maker(scores: ir.Value) -> ir.Node | None:
    """The layer that gives scores of classes, one for each sample."""
    if scores.shape is None or len(scores.shape) != 2:
        return None
    node = scores.producer()
    while node is not None and not domain_of(node) and node.op_type in _PASSED:
        computed = [value for value in node.inputs if value is not None and constant_tensor(value) is None]
        node = computed[0].producer() if len(computed) == 1 else None
    return node

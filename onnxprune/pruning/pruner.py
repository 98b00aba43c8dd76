"""What prunes a model at a step of the schedule, and what it needs for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor
from onnxprune.model.weights import Weight
from onnxprune.pruning.schedule import PruningStep, layer_family

# Arrays of masks or scores by the model's own constants.
Arrays = Mapping[ir.Value, np.ndarray]


@dataclass(frozen=True)
class Pruner:
    """Zeroes weights of a model.

    `prune(step, gradients)` reads the model's weights as they stand, zeroes some in it, and returns the masks of what
    it decided on (bool, True = kept). `weights` are those that it may prune one by one. `gradients`: dL/dw by the
    model's constants, of their shapes, where the pruner `needs_gradients`. `updates_weights`: it also changes weights
    that it keeps.
    """

    prune: Callable[[PruningStep, Arrays], Arrays]
    weights: tuple[Weight, ...]
    needs_gradients: bool = False
    updates_weights: bool = False

    @property
    def families(self) -> tuple[str, ...]:
        """The kinds of layers that there are, in the order of the graph."""
        return tuple(dict.fromkeys(layer_family(weight.op_type) for weight in self.weights))

    def fixed(self, step: PruningStep) -> set[ir.Value]:
        """The constants of the layers that are not fine-tuned after a step: those of other families than its own."""
        if step.family is None:
            return set()
        nodes = [use.node for weight in self.weights for use in weight.uses]
        return {
            value
            for node in nodes
            if layer_family(node.op_type) != step.family
            for value in node.inputs
            if value is not None and constant_tensor(value) is not None
        }

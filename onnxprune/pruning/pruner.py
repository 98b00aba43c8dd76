"""The interface of a pruner, which prunes a model at each step of the schedule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constants_read
from onnxprune.model.weights import Weight
from onnxprune.pruning.criteria import Needs
from onnxprune.pruning.schedule import PruningStep, layer_family

# Masks or gradients, by the constants of the model.
Arrays = Mapping[ir.Value, np.ndarray]


@dataclass(frozen=True)
class Pruner:
    """Zeroes weights of a model.

    `prune(step, gradients)` reads the current weights of the model, zeroes some of them in place, and returns masks
    (bool, True = kept). `weights`: those that it may prune one by one. `gradients`: what the criterion `needs` of the
    training, dL/dw or the movement by the model's constants, in their shapes. `updates_weights`: whether it also
    changes remaining weights. `notes`: what the last step could not remove, in sentences. `untrained`: constants that
    stay as a step leaves them.
    """

    prune: Callable[[PruningStep, Arrays], Arrays]
    weights: tuple[Weight, ...]
    needs: Needs = "weights"
    updates_weights: bool = False
    notes: Callable[[], Iterable[str]] = tuple
    untrained: Collection[ir.Value] = ()

    @property
    def families(self) -> tuple[str, ...]:
        """The layer families of the weights, in the order of the graph."""
        return tuple(dict.fromkeys(layer_family(weight.op_type) for weight in self.weights))

    def fixed(self, step: PruningStep) -> set[ir.Value]:
        """The constants that are frozen after a step: `untrained`, and those of other families than the step's."""
        if step.family is None:
            return set(self.untrained)
        nodes = (use.node for weight in self.weights for use in weight.uses)
        return constants_read(node for node in nodes if layer_family(node.op_type) != step.family).union(
            self.untrained
        )

"""Removal of all dead units, in passes to a fixed point, and the report on it."""

from __future__ import annotations

from itertools import count

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, constants
from onnxprune.model.weights import Weight, find_weights
from onnxprune.surgery.dead import Fold, Liveness
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.remove import remove_groups
from onnxprune.surgery.report import KeptDead, LayerSurgery, SurgeryReport
from onnxprune.surgery.sharing import own_vectors
from onnxprune.surgery.tables import BIASES, Axis, key
from onnxprune.surgery.units import Units

LAST_IR_WITH_INITIALIZERS_AS_INPUTS = 3
TOGETHER = "it can only be removed together with units that are alive"


def remove_dead_units(model: ir.Model) -> SurgeryReport:
    """Remove every output channel and neuron without inputs or without outputs, in place, to a fixed point.

    A unit whose weights are all zero is a constant: it is evaluated through the activations, norms and pooling that
    follow, and folded into the biases of the weights that read it. A unit that nothing reads is removed. Every layer
    keeps at least one unit; graph inputs and outputs keep their shapes. Units whose removal is not proven safe are
    kept, with the reason in the report. The outputs of the model are the same, up to rounding.
    """
    layers = [_Layer(weight) for weight in find_weights(model).prunable]
    bytes_before = _constant_bytes(model)
    with own_vectors(model):
        for number in count():
            units = Units(Facts(model), innermost=number % 2 == 1)
            removed = _remove_dead(units, layers)
            # A pass leaves nothing that it could remove, so after one without removals both kinds are at a fixed point.
            if not units.has_choices or (number and not removed):
                break
    if model.ir_version <= LAST_IR_WITH_INITIALIZERS_AS_INPUTS:
        inputs = set(model.graph.inputs)
        model.graph.inputs.extend(v for v in model.graph.initializers.values() if v not in inputs)
    return SurgeryReport(
        tuple(layer.record() for layer in layers),
        tuple(kept for layer in layers for kept in layer.kept_dead),
        bytes_before - _constant_bytes(model),
    )


class _Layer:
    """A weight during the passes: its remaining units, and the dead ones among them."""

    def __init__(self, weight: Weight):
        self.weight = weight
        self.shape = weight.shape
        self.units_left = np.arange(self.shape[weight.out_axis])
        self.kept_dead: list[KeptDead] = []
        self.frozen: list[str | None] = []

    def note(self, units: Units, liveness: Liveness) -> None:
        """Record, before the removal of a pass, which dead units it keeps and why."""
        axis = Axis(self.weight.value, self.weight.out_axis)
        self.kept_dead = []
        if axis not in units:
            self.frozen.append("it is not in the main graph or the body of an If")
            return
        groups = units.groups(axis)
        self.frozen.append(units.reason(int(groups[0])) if units.frozen()[groups].all() else None)
        unread = liveness.offered[groups] & ~liveness.read[groups]
        constant = ~self.weight.outputs_present()
        alive = liveness.alive[groups]
        reasons: dict[str, list[int]] = {}
        for unit in np.flatnonzero(alive & (unread | constant)):
            group = int(groups[unit])
            reason = units.reason(group) or liveness.kept_reasons.get(group, TOGETHER)
            reasons.setdefault(reason, []).append(int(self.units_left[unit]))
        self.kept_dead = [
            KeptDead(self.weight.name, tuple(members), reason) for reason, members in reasons.items()
        ]
        self.units_left = self.units_left[alive]

    def record(self) -> LayerSurgery:
        """The record of the weight."""
        weight, before, after = self.weight, self.shape, self.weight.shape
        out_axis = weight.out_axis
        in_axis = weight.in_axis
        return LayerSurgery(
            weight.name,
            before[out_axis],
            after[out_axis],
            before[in_axis],
            after[in_axis],
            int(np.prod(before, dtype=np.int64)),
            weight.size,
            None if None in self.frozen else self.frozen[0],
        )


def _remove_dead(units: Units, layers: list[_Layer]) -> bool:
    """One pass; returns whether anything was removed."""
    liveness = Liveness(units)
    folds = liveness.folds()
    for layer in layers:
        layer.note(units, liveness)
    if liveness.alive[units.all_groups()].all():
        return False
    remove_groups(units, liveness.alive)
    for fold in folds:
        _apply_fold(fold, units, liveness.alive)
    return True


def _apply_fold(fold: Fold, units: Units, alive: np.ndarray) -> None:
    contraction = fold.contraction
    assert contraction.out is not None
    delta = fold.delta[alive[units.groups(contraction.out)]]
    axis = contraction.out.dim - units.facts.rank(contraction.out.value)
    array = units.facts.constant(contraction.weight.value)
    assert array is not None
    BIASES[key(contraction.node)](
        contraction.node, units.facts, axis, delta, ir.DataType.from_numpy(array.dtype)
    )


def _constant_bytes(model: ir.Model) -> int:
    return sum(tensor.nbytes for value in constants(model) if (tensor := constant_tensor(value)) is not None)

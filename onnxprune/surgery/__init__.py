"""Surgery: what is dead leaves the graph, and its shapes with it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.model.weights import Weight, constant_tensor, find_weights
from onnxprune.surgery.dead import Fold, Liveness
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.remove import remove_groups
from onnxprune.surgery.report import KeptDead, LayerSurgery, SurgeryReport
from onnxprune.surgery.tables import BIASES, Axis, key
from onnxprune.surgery.units import Units

__all__ = ["KeptDead", "LayerSurgery", "SurgeryReport", "remove_dead_units"]

LAST_IR_WITH_INITIALIZERS_AS_INPUTS = 3
TOGETHER = "it goes only together with units that live"


def remove_dead_units(model: ir.Model) -> SurgeryReport:
    """Remove every output channel and neuron that has no inputs or no outputs left, in place, to a fixed point.

    A unit whose weights are all zero is a constant: it goes through the activations, norms and pooling that follow,
    in float64 and onnxruntime, into the biases of the weights that read it. A unit that nothing reads just goes. Every
    layer keeps at least one unit; graph inputs and outputs keep their shapes. What cannot be proven safe stays, with
    the reason in the report. The outputs of the model are the same, up to rounding.
    """
    weights = find_weights(model).prunable
    shapes = [weight.shape for weight in weights]
    bytes_before = _constant_bytes(model)
    facts = Facts(model)
    units = Units(facts)
    liveness = Liveness(units)
    folds = liveness.folds()
    kept_dead = tuple(kept for weight in weights for kept in _kept_dead(weight, units, liveness))
    frozen = [_why_frozen(weight, units) for weight in weights]
    remove_groups(units, liveness.alive)
    for fold in folds:
        _apply_fold(fold, units, liveness.alive)
    if model.ir_version <= LAST_IR_WITH_INITIALIZERS_AS_INPUTS:
        inputs = set(model.graph.inputs)
        model.graph.inputs.extend(v for v in model.graph.initializers.values() if v not in inputs)
    layers = tuple(
        _layer(weight, shape, reason) for weight, shape, reason in zip(weights, shapes, frozen, strict=True)
    )
    return SurgeryReport(layers, kept_dead, bytes_before - _constant_bytes(model))


def _apply_fold(fold: Fold, units: Units, alive: np.ndarray) -> None:
    contraction = fold.contraction
    delta = fold.delta[alive[units.groups(contraction.out)]]
    axis = contraction.out.dim - units.facts.rank(contraction.out.value)
    array = units.facts.constant(contraction.weight.value)
    assert array is not None
    BIASES[key(contraction.node)](
        contraction.node, units.facts, axis, delta, ir.DataType.from_numpy(array.dtype)
    )


def _constant_bytes(model: ir.Model) -> int:
    stored = [value for graph in model.graphs() for value in graph.initializers.values()]
    made = [value for node in model.graph.all_nodes() for value in node.outputs]
    tensors = (constant_tensor(value) for value in (*stored, *made))
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _layer(weight: Weight, before: tuple[int, ...], frozen: str | None) -> LayerSurgery:
    out_axis, after = weight.out_axis, weight.shape
    in_axis = 1 if weight.op_type == "Conv" else 2 * len(before) - 3 - out_axis
    return LayerSurgery(
        weight.name,
        before[out_axis],
        after[out_axis],
        before[in_axis],
        after[in_axis],
        int(np.prod(before, dtype=np.int64)),
        weight.size,
        frozen,
    )


def _why_frozen(weight: Weight, units: Units) -> str | None:
    axis = Axis(weight.value, weight.out_axis)
    if axis not in units:
        return "it is not in the main graph"
    groups = units.groups(axis)
    return units.reason(int(groups[0])) if units.frozen()[groups].all() else None


def _kept_dead(weight: Weight, units: Units, liveness: Liveness) -> list[KeptDead]:
    """The units of a weight that are constants or that nothing reads, and that stay."""
    axis = Axis(weight.value, weight.out_axis)
    if axis not in units:
        return []
    groups = units.groups(axis)
    unread = liveness.offered[groups] & ~liveness.read[groups]
    constant = ~weight.matrix(units.facts.constant(weight.value)).any(axis=1)
    dead = np.flatnonzero(liveness.alive[groups] & (unread | constant))
    reasons: dict[str, list[int]] = {}
    for unit in dead:
        group = int(groups[unit])
        reason = units.reason(group) or liveness.kept_because.get(group, TOGETHER)
        reasons.setdefault(reason, []).append(int(unit))
    return [KeptDead(weight.name, tuple(members), reason) for reason, members in reasons.items()]

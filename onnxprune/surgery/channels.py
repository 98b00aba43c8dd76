"""Channel pruning on the graph: the weights of each group of coupled units, and the removal of chosen units.

All positions of a unit are zeroed in every weight of its group. Nothing reads the unit then, so it is dead, and
`remove_dead_units` proves again that its removal changes nothing. Where two computed values are multiplied (queries and
keys), no weight reads the unit; there its biases are zeroed as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, put_tensor, set_constant
from onnxprune.model.costs import PRODUCTS
from onnxprune.model.reading import FLOAT_TYPES
from onnxprune.model.weights import constants_by_name, find_weights
from onnxprune.surgery.addends import PASSED_THROUGH, addends
from onnxprune.surgery.dead import LAST_OF_AXIS, Liveness
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.removal import remove_dead_units
from onnxprune.surgery.report import SurgeryReport
from onnxprune.surgery.sharing import own_vectors
from onnxprune.surgery.streams import normed_streams
from onnxprune.surgery.tables import Axis, key
from onnxprune.surgery.units import Units

Group = Mapping[tuple[str, int], np.ndarray]
"""The positions of a group, by name and axis of each constant: int64, ascending."""
_Name = TypeVar("_Name")


@dataclass(frozen=True)
class UnitGroups:
    """The groups of coupled channels that can be removed from a model, each on its own.

    `positions` and `biases` have one entry per group: its positions in weights, and in biases that have to be zero too.
    They do not change while only values of the weights do. Attention weights can lose whole heads, or part of the width
    of every head: both kinds of groups are included. `multiplied`: its positions on the axes of what nodes multiply, of
    computed values too, and of the results. `in_stream`: whether a group is of a residual stream with norms;
    `dead`: whether `remove_dead_units` removes it from the model as it was.
    """

    positions: tuple[Group, ...]
    biases: tuple[Group, ...]
    multiplied: tuple[Mapping[Axis, np.ndarray], ...]
    in_stream: tuple[bool, ...]
    dead: tuple[bool, ...]
    model: ir.Model
    names: Mapping[ir.Value, str]

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The present numbers of all weights, dequantized, by name."""
        numbers = {weight.value: weight.numbers() for weight in find_weights(self.model).prunable}
        tensors = {value: constant_tensor(value) for value in self.names if value not in numbers}
        numbers |= {value: tensor.numpy() for value, tensor in tensors.items() if tensor is not None}
        return {name: numbers[value] for value, name in self.names.items()}


class _Removable(NamedTuple):
    """What `UnitGroups` has of one group."""

    positions: Group
    biases: Group
    multiplied: Mapping[Axis, np.ndarray]
    in_stream: bool
    dead: bool


def unit_groups(model: ir.Model) -> UnitGroups:
    """Every group that can be removed; the model is not changed."""
    found: dict[frozenset, _Removable] = {}
    names: dict[ir.Value, str] = {}
    innermost = False
    with own_vectors(model) as copies:
        while True:
            units = Units(Facts(model), innermost=innermost)
            names = _weight_names(units)
            for group in _removable(units, names, {*copies, *copies.values()}):
                found.setdefault(
                    frozenset((at, where.tobytes()) for at, where in group.positions.items()), group
                )
            if innermost or not units.has_choices:
                break
            innermost = True
    every = list(found.values())
    return UnitGroups(
        positions=tuple(group.positions for group in every),
        biases=tuple(group.biases for group in every),
        multiplied=tuple(group.multiplied for group in every),
        in_stream=tuple(group.in_stream for group in every),
        dead=tuple(group.dead for group in every),
        model=model,
        names=names,
    )


def zero_units(model: ir.Model, groups: UnitGroups, chosen: Iterable[int]) -> dict[str, np.ndarray]:
    """Zero all weights that make or read the chosen units (indices of the groups), in place.

    Returns masks by name (bool, True = kept): of every weight with positions in a chosen group, and of the biases that
    have to stay zero. As long as training keeps these zeros, the removal is exact.
    """
    parts: dict[tuple[str, int], list[np.ndarray]] = {}
    for index in chosen:
        for at, where in (*groups.positions[index].items(), *groups.biases[index].items()):
            parts.setdefault(at, []).append(where)
    return _zero(model, {at: np.concatenate(where) for at, where in parts.items()})


def remove_units(model: ir.Model, groups: UnitGroups, chosen: Iterable[int]) -> SurgeryReport:
    """Zero the chosen units, and remove them and all other dead units in place; see `remove_dead_units`."""
    zero_units(model, groups, chosen)
    return remove_dead_units(model)


def _removable(units: Units, names: Mapping[ir.Value, str], shared: set[ir.Value]) -> Iterator[_Removable]:
    """Each group that can be removed."""
    free = ~units.frozen()
    starts = units.starts()
    if not len(starts):
        return
    numbers = units.all_groups()
    low, high = np.minimum.reduceat(numbers, starts), np.maximum.reduceat(numbers, starts)
    free[low[low == high]] = False  # a whole axis
    multiplied = _multiplied(units) & free
    biases: Mapping[int, Group] = {}
    if multiplied.any():
        added = {value: value.name or "" for value in addends(units.facts.model) if value not in shared}
        biases = _positions_by_group(units, added, multiplied)
        free &= ~multiplied | _provably_dead(units, _positions_by_group(units, names, multiplied), biases)
    in_stream, alive = normed_streams(units), Liveness(units).alive
    multiplied_by_group = _positions_by_group(units, _factors(units), free)
    for number, group in _positions_by_group(units, names, free).items():
        along = {
            Axis(value, dim): where for (value, dim), where in multiplied_by_group.get(number, {}).items()
        }
        yield _Removable(group, biases.get(number, {}), along, bool(in_stream[number]), not alive[number])


def _multiplied(units: Units) -> np.ndarray:
    """Groups along which two computed values are multiplied and summed, or one is summed; bool by group number."""
    found = np.zeros(len(units.all_groups()), bool)
    for contraction in units.contractions:
        if contraction.weight == contraction.data or _source(contraction.weight.value) is None:
            found[units.groups(contraction.data)] = True
    return found


def _provably_dead(units: Units, groups: Mapping[int, Group], biases: Mapping[int, Group]) -> np.ndarray:
    """Which groups are dead once their positions are zero, bool by number: tried on the model, then undone."""
    values = constants_by_name(units.facts.model)
    parts: dict[tuple[str, int], list[np.ndarray]] = {}
    for positions in (*groups.values(), *biases.values()):
        for at, where in positions.items():
            parts.setdefault(at, []).append(where)
    before = {name: constant_tensor(values[name]) for name, _ in parts}
    _zero(units.facts.model, {at: np.concatenate(where) for at, where in parts.items()})
    liveness = Liveness(Units(Facts(units.facts.model), innermost=units.innermost))
    for name, tensor in before.items():
        assert tensor is not None
        put_tensor(values[name], tensor)
    dead = ~liveness.alive
    last = [group for group, reason in liveness.kept_reasons.items() if reason == LAST_OF_AXIS]
    dead[last] = True  # alive only because all of its layer was zeroed at once
    return dead


def _positions_by_group(
    units: Units, names: Mapping[ir.Value, _Name], wanted: np.ndarray
) -> dict[int, dict[tuple[_Name, int], np.ndarray]]:
    """The positions of each wanted group (bool by number) on the axes of these values."""
    places = [
        (name, axis)
        for value, name in names.items()
        for axis in (Axis(value, dim) for dim in range(len(units.facts.shape(value) or ())))
        if axis in units
    ]
    if not places:
        return {}
    groups = [units.groups(axis) for _, axis in places]
    number = np.concatenate(groups)
    place = np.repeat(np.arange(len(places)), [len(part) for part in groups])
    position = np.concatenate([np.arange(len(part)) for part in groups])
    chosen = np.flatnonzero(wanted[number])
    chosen = chosen[np.lexsort((position[chosen], place[chosen], number[chosen]))]
    number, place, position = number[chosen], place[chosen], position[chosen]
    edges = np.flatnonzero((np.diff(number) != 0) | (np.diff(place) != 0)) + 1
    found: dict[int, dict[tuple[_Name, int], np.ndarray]] = {}
    for start, run in zip([0, *edges], np.split(position, edges), strict=True):
        if len(run):
            name, axis = places[place[start]]
            found.setdefault(int(number[start]), {})[name, axis.dim] = run
    return dict(found)


def _factors(units: Units) -> dict[ir.Value, ir.Value]:
    """The values that nodes with multiply-adds read and make."""
    nodes = [node for node in units.facts.nodes() if key(node) in PRODUCTS]
    return {value: value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None}


def _weight_names(units: Units) -> dict[ir.Value, str]:
    """All weights by name: the prunable ones, and all other stored constants that a node multiplies with."""
    names = {weight.value: weight.name for weight in find_weights(units.facts.model).prunable}
    for contraction in units.contractions:
        # What is summed alone may be stored too, such as a bias; it is no weight.
        source = _source(contraction.weight.value) if contraction.weight != contraction.data else None
        tensor = constant_tensor(source)
        # How integers are dequantized is known only of prunable weights.
        if source is not None and tensor is not None and tensor.dtype in FLOAT_TYPES:
            names.setdefault(source, source.name or "")
    return names


def _source(value: ir.Value | None) -> ir.Value | None:
    """The stored tensor behind a weight; None where it is computed from anything else."""
    while value is not None and constant_tensor(value) is None:
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in PASSED_THROUGH else None
    return value


def _zero(model: ir.Model, positions: Group) -> dict[str, np.ndarray]:
    """Zero these positions; returns the masks."""
    values = constants_by_name(model)
    zeros: dict[str, Any] = {weight.name: weight.encoding.zero for weight in find_weights(model).prunable}
    zeros = {value.name or "": zero for value, zero in addends(model).items()} | zeros
    masks: dict[str, np.ndarray] = {}
    for (name, axis), where in positions.items():
        tensor = constant_tensor(values[name])
        assert tensor is not None
        mask = masks.setdefault(name, np.ones(tensor.shape.numpy(), bool))
        mask[(slice(None),) * axis + (where,)] = False
    for name, mask in masks.items():
        tensor = constant_tensor(values[name])
        assert tensor is not None
        array = tensor.numpy()
        zeroed = np.where(mask, array, zeros.get(name, 0)).astype(array.dtype, copy=False)
        set_constant(values[name], zeroed, tensor.dtype)
    return masks

"""Which groups are dead: nothing reads them, or they are constants that can be folded into the reader's bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.surgery.facts import Facts, weight_matrix
from onnxprune.surgery.tables import Contraction
from onnxprune.surgery.units import Units

LAST_OF_AXIS = "it is the last unit of its layer"


@dataclass(frozen=True)
class Fold:
    """A vector to add along the output axis of a contraction (float64, all units, removed ones included)."""

    contraction: Contraction
    delta: np.ndarray


class Liveness:
    """`alive`: bool by group number. Frozen groups are alive, and so is every non-constant that a living unit reads.

    This is the least fixed point: a unit that only dead units read is dead, so removal cascades. An axis never becomes
    empty: its first position is kept.
    """

    def __init__(self, units: Units):
        self.units = units
        self.alive = units.frozen().copy()
        self.read = np.zeros(len(self.alive), bool)
        self.offered = np.zeros(len(self.alive), bool)
        self.kept_reasons: dict[int, str] = {}
        self._reads: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        starts = units.starts()
        first_groups = units.all_groups()[starts] if len(starts) else starts
        while True:
            self._spread()
            empty = (
                ~np.logical_or.reduceat(self.alive[units.all_groups()], starts) if len(starts) else starts > 0
            )
            if not empty.any():
                return
            revived = int(first_groups[empty][0])
            self.alive[revived] = True
            self.kept_reasons.setdefault(revived, LAST_OF_AXIS)

    def folds(self) -> list[Fold]:
        """The constants that dead units contribute to the living units that read them."""
        facts, folds = self.units.facts, []
        for number, contraction in enumerate(self.units.contractions):
            array, zero = facts.constant(contraction.weight.value), facts.zero(contraction.weight.value)
            if (
                array is None
                or zero is None
                or contraction.refusal is not None
                or contraction.weight_out is None
            ):
                continue
            constants = self._constants(contraction).filled(0).astype(np.float64)
            dead = ~self.alive[self.units.groups(contraction.data)]
            used = np.flatnonzero(dead & (constants != 0) & self._reads[number][1])
            if used.size:
                centered = array - zero if zero.any() else array
                matrix = weight_matrix(centered, contraction.weight_out.dim, contraction.weight.dim)[:, used]
                delta = contraction.scale * (matrix.sum(axis=2, dtype=np.float64) @ constants[used])
                folds.append(Fold(contraction, delta))
        return folds

    def _spread(self) -> None:
        changed = True
        while changed:
            changed = False
            for number in reversed(range(len(self.units.contractions))):
                contraction = self.units.contractions[number]
                groups = self.units.groups(contraction.data)
                reads = self._reads_of(number, contraction)
                self.offered[groups] = True
                self.read[groups[reads]] = True
                constants = self._constants(contraction)
                foldable = ~np.ma.getmaskarray(constants)
                if not contraction.measures and (
                    contraction.refusal is not None or self.units.facts.zero(contraction.weight.value) is None
                ):
                    stuck = foldable & (constants.filled(0) != 0)
                    for group in groups[reads & stuck & ~self.alive[groups]]:
                        self.kept_reasons.setdefault(
                            int(group), contraction.refusal or "a computed operand reads it"
                        )
                    foldable &= ~stuck
                needed = groups[reads & ~foldable]
                if not self.alive[needed].all():
                    self.alive[needed] = True
                    changed = True

    def _reads_of(self, number: int, contraction: Contraction) -> np.ndarray:
        """Which positions of the shared axis a living unit reads, bool."""
        weight, facts = contraction.weight, self.units.facts
        if contraction.out is None or contraction.weight_out is None:
            if number not in self._reads:
                self._reads[number] = np.ones(0, bool), _any_nonzero(facts, contraction)
            return self._reads[number][1]
        living = self.alive[self.units.groups(contraction.out)]
        if number in self._reads and np.array_equal(self._reads[number][0], living):
            return self._reads[number][1]
        connections = facts.connections(weight.value, contraction.weight_out.dim, weight.dim)
        read = _any_nonzero(facts, contraction) if connections is None else connections.read_by(living)
        self._reads[number] = living, read
        return self._reads[number][1]

    def _constants(self, contraction: Contraction) -> np.ma.MaskedArray:
        return _from_zero(self.units.facts.along(contraction.data), contraction.zero)


def _any_nonzero(facts: Facts, contraction: Contraction) -> np.ndarray:
    """Which positions of the weight's shared axis have an element that is not zero, or not known; bool."""
    axis = contraction.weight
    array = facts.present(axis.value)
    if array is None:
        return _from_zero(facts.along(axis), contraction.weight_zero).filled(1) != 0
    return (np.moveaxis(array, axis.dim, 0).reshape(array.shape[axis.dim], -1) != 0).any(axis=1)


def _from_zero(constants: np.ma.MaskedArray, zero: float | None) -> np.ma.MaskedArray:
    """Constants as differences from what stands for 0; where that is not known, none is."""
    if zero is None:
        return np.ma.masked_all(constants.shape)
    return np.ma.array(constants.data.astype(np.float64) - zero, mask=constants.mask) if zero else constants

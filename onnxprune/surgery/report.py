"""The report on surgery: what was removed, and which dead units were kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerSurgery:
    """One weight before and after surgery: output units, input units, elements.

    `frozen`: why none of its output units can be removed, dead or not; None where they can.
    """

    name: str
    outputs_before: int
    outputs_after: int
    inputs_before: int
    inputs_after: int
    elements_before: int
    elements_after: int
    frozen: str | None


@dataclass(frozen=True)
class KeptDead:
    """Output units of a weight (positions before surgery) that are dead and were kept, and why."""

    name: str
    units: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class SurgeryReport:
    """All weights in node order; `bytes_removed` also counts biases, and those that folding added."""

    layers: tuple[LayerSurgery, ...]
    kept_dead: tuple[KeptDead, ...]
    bytes_removed: int

    @property
    def units_removed(self) -> int:
        """Output units removed, over all weights."""
        return sum(layer.outputs_before - layer.outputs_after for layer in self.layers)

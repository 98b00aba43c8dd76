"""Surgery: dead channels and neurons are removed from the graph, with all shapes that depend on them."""

from onnxprune.surgery.channels import UnitGroups, remove_units, unit_groups, zero_units
from onnxprune.surgery.removal import remove_dead_units
from onnxprune.surgery.report import KeptDead, LayerSurgery, SurgeryReport

__all__ = [
    "KeptDead",
    "LayerSurgery",
    "SurgeryReport",
    "UnitGroups",
    "remove_dead_units",
    "remove_units",
    "unit_groups",
    "zero_units",
]

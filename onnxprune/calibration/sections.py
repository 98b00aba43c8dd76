"""A model as a chain of sections: nodes between places where one value alone carries what pruning changes.

residual network  ->  its first layer, each residual block, its head
transformer       ->  attention and MLP of each layer
plain chain       ->  runs of a few layers
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.calibration.segments import compared, last_reads
from onnxprune.model.excerpt import reads


@dataclass(frozen=True)
class Section:
    """The nodes from index `start` to before `end` of the main graph, and those of their values that are compared."""

    start: int
    end: int
    outputs: tuple[ir.Value, ...]


def sections(model: ir.Model, pruned: Collection[ir.Value], most: int) -> list[Section]:
    """The sections that hold the pruned constants, in order; neighbors are joined while they hold at most `most`.

    A graph without any such place, like a U-Net, is one section.
    """
    nodes = list(model.graph)
    counts = [len({value for value in reads(node) if value in pruned}) for node in nodes]
    places = [place for place, count in enumerate(counts) if count]
    if not places:
        return []
    crossing = _crossing(model, pruned)
    # Activations belong to the layer before them.
    borders = {
        max((place for place in range(reader + 1) if len(crossing[place]) == 1), default=places[0])
        for reader in places[1:]
    }
    starts, held = [places[0]], 0
    bounds = [places[0], *sorted(border for border in borders if border > places[0]), len(nodes)]
    for start, end in itertools.pairwise(bounds):
        count = sum(counts[start:end])
        if held and held + count > most:
            starts.append(start)
            held = 0
        held += count
    return [
        Section(start, end, tuple(crossing[end])) for start, end in itertools.pairwise([*starts, len(nodes)])
    ]


def whole(chain: list[Section]) -> Section:
    """All sections as one, compared at the end of each."""
    outputs = dict.fromkeys(value for section in chain for value in section.outputs)
    return Section(chain[0].start, chain[-1].end, tuple(outputs))


def _crossing(model: ir.Model, pruned: Collection[ir.Value]) -> list[list[ir.Value]]:
    """For each place before a node, and after the last, the values made before and read after it that pruning changes.

    Last those that are compared at the end of the model.
    """
    nodes = list(model.graph)
    last = last_reads(model)
    changed = set(pruned)
    crossing: list[list[ir.Value]] = []
    alive: list[ir.Value] = []
    for place, node in enumerate(nodes):
        alive = [value for value in alive if last[value] >= place]
        crossing.append(list(alive))
        if not changed.isdisjoint(reads(node)):
            changed.update(node.outputs)
            alive += [value for value in node.outputs if value in last]
    ends = [value for value in compared(model) if value in changed]
    return [*crossing, ends]

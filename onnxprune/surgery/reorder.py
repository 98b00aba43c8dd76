"""Another order of the channels of a model, which changes none of its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.model.constants import constant_tensor, set_constant
from onnxprune.surgery.axes import Axis
from onnxprune.surgery.facts import Facts
from onnxprune.surgery.units import Units


@dataclass(frozen=True)
class Channels:
    """Channels that can trade places: `positions` of each, (channels, places), by axis of a constant."""

    positions: Mapping[Axis, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.positions.values())))

    def reorder(self, order: np.ndarray) -> None:
        """Put channel `order[i]` into the place of channel i, in place, in every constant."""
        for (value, dim), positions in self.positions.items():
            tensor = constant_tensor(value)
            assert tensor is not None
            array = tensor.numpy()
            index = np.arange(array.shape[dim])
            index[positions] = positions[order]
            set_constant(value, np.take(array, index, axis=dim), tensor.dtype)


def reorderable(model: ir.Model) -> list[Channels]:
    """The channels of each layer that can trade places: those that the same axes hold at as many positions each.

    A channel takes its weights, its bias and everything that reads it along. Channels that reach an input or output of
    the graph stay, as for `remove_dead_units`.
    """
    facts = Facts(model)
    units = Units(facts)
    numbers, starts = units.all_groups(), units.starts()
    place = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(numbers))))
    held = np.flatnonzero(~units.frozen()[numbers])
    held = held[np.lexsort((held, place[held], numbers[held]))]
    layers: dict[tuple[tuple[int, int], ...], list[dict[int, np.ndarray]]] = {}
    for group in _runs(held, numbers[held]):
        by_axis = {int(place[run[0]]): run - starts[place[run[0]]] for run in _runs(group, place[group])}
        layers.setdefault(tuple((at, len(where)) for at, where in by_axis.items()), []).append(by_axis)
    axes = list(units.axes())
    return [
        Channels(positions)
        for key, channels in layers.items()
        if len(channels) > 1 and (positions := _of_constants(axes, key, channels))
    ]


def _runs(positions: np.ndarray, values: np.ndarray) -> Iterator[np.ndarray]:
    """The positions, split where the values beside them change."""
    if len(positions):
        yield from np.split(positions, np.flatnonzero(np.diff(values)) + 1)


def _of_constants(
    axes: Sequence[Axis], key: tuple[tuple[int, int], ...], channels: Sequence[Mapping[int, np.ndarray]]
) -> dict[Axis, np.ndarray]:
    return {
        axes[at]: np.stack([by_axis[at] for by_axis in channels])
        for at, _ in key
        if constant_tensor(axes[at].value) is not None and not _lists_places(axes[at].value)
    }


def _lists_places(value: ir.Value) -> bool:
    """Whether a constant says which channels are picked: its places stay, and other channels come to them."""
    return any(use.node.op_type.startswith(("Gather", "Scatter")) and use.idx == 1 for use in value.uses())

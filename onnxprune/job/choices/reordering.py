"""The order of channels for patterns of neighboring weights, chosen before anything is pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.calibration.walk import affordable, walk
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import DataError
from onnxprune.job.kernels import same_outputs
from onnxprune.job.pruners.pruner import usable_weights
from onnxprune.job.samples.inputs import JobData
from onnxprune.model.blocks import Blocks
from onnxprune.model.constants import constant_tensor, put_tensor
from onnxprune.model.weights import Weight
from onnxprune.pruning.allocation import excluded_weights
from onnxprune.pruning.blocks import BLOCK, BLOCK_PATTERNS
from onnxprune.pruning.channel_order import ChannelOrder, best_order
from onnxprune.reports.record import Detail
from onnxprune.surgery.axes import Axis
from onnxprune.surgery.reorder import Channels, reorderable
from onnxprune.system.processes import process_count

# The rate that the order is chosen for: with one for all rates, the trials of a search have the same order. ResNet-20
# loses 8 % fewer squares at rates of 0.5 and 0.8 by it, and 10 and 7 % fewer by the order for the rate itself.
RATE = 0.7
SAMPLES = 64
# Rows of a weight that the order is chosen by, about.
MOST_ROWS = 4096
TWO_OF_FOUR = "2:4"


def reorder(model: ir.Model, name: str, data: JobData, config: PruneConfig) -> tuple[str, ...]:
    """Put channels into an order in which the pattern loses less, in place, if there is one; returns a note about it.

    Whether the outputs stay the same is tried in onnxruntime; if they do not, the order stays. Channels of weights that
    --exclude names keep theirs.
    """
    asked = config.pattern in BLOCK_PATTERNS or config.pattern == TWO_OF_FOUR
    if not asked or not config.reorder or config.rate == 0 or not config.runs_model:
        return ()
    # Sums that differ in their last bit would give each its own order.
    if process_count() > 1:
        return ()
    weights = usable_weights(model, name, config).prunable
    excluded = {weight.value for weight in excluded_weights(weights, config)}
    layers = [
        layer for layer in reorderable(model) if not excluded & {axis.value for axis in layer.positions}
    ]
    fit = [weight for weight in weights if Blocks.fit(weight) and not _grouped(weight)]
    powers = _powers(model, fit, data)
    dense = model.clone()
    before = {axis.value: constant_tensor(axis.value) for layer in layers for axis in layer.positions}
    found = []
    for layer in layers:
        places = _along(layer, fit, config.pattern)
        traded = _in_whole_blocks(list(places.values()))
        if len(traded) <= BLOCK:
            continue
        squares = [_squares(weight, at[traded], powers, config.pattern) for weight, at in places.items()]
        best = best_order(squares, None if config.pattern == TWO_OF_FOUR else RATE, config.seed)
        if best.after < best.before:
            order = np.arange(len(layer))
            order[traded] = traded[best.order]
            layer.reorder(order)
            found.append(best)
    if not found:
        return ()
    if not same_outputs(data, dense, model):
        for value, tensor in before.items():
            assert tensor is not None
            put_tensor(value, tensor)
        return ()
    return (_note(found, config.pattern),)


def _note(found: Sequence[ChannelOrder], pattern: str) -> str:
    first, last = (np.mean([getattr(each, when) for each in found]) for when in ("before", "after"))
    return Detail(
        f"The channels of {len(found)} layer{'s' * (len(found) > 1)} were reordered, so that --pattern {pattern} "
        f"removes {last:.1%} of their squares instead of {first:.1%}; the outputs stay the same (--no-reorder leaves "
        "the order)."
    )


def _along(layer: Channels, weights: Sequence[Weight], pattern: str) -> dict[Weight, np.ndarray]:
    """The place of each channel in the weights whose blocks lie along these channels."""
    axes = {weight: Axis(weight.value, _axis(weight, pattern)) for weight in weights}
    held = {weight: layer.positions[axis] for weight, axis in axes.items() if axis in layer.positions}
    return {weight: places[:, 0] for weight, places in held.items() if places.shape[1] == 1}


def _axis(weight: Weight, pattern: str) -> int:
    return weight.in_axis if pattern == TWO_OF_FOUR else BLOCK_PATTERNS[pattern].axis(weight)


def _in_whole_blocks(places: Sequence[np.ndarray]) -> np.ndarray:
    """The channels of which four fill a block of every weight, one block after the other.

    Others share a block with what does not trade places with them: the rest of an axis, or another layer's channels.
    """
    if not places:
        return np.array([], int)
    blocks = np.stack(places, axis=1) // BLOCK
    _, block, counts = np.unique(blocks, axis=0, return_inverse=True, return_counts=True)
    block = block.ravel()
    channels = np.argsort(block, kind="stable")
    return channels[counts[block[channels]] == BLOCK]


def _squares(
    weight: Weight, places: np.ndarray, powers: Mapping[ir.Value, np.ndarray], pattern: str
) -> np.ndarray:
    """How much the outputs of a weight move without each of its elements: float64 (rows, channels at these places)."""
    numbers, axis = weight.numbers(), _axis(weight, pattern)
    power = powers.get(weight.value, np.ones(numbers.shape[weight.in_axis]))
    power = np.broadcast_to(power.reshape(-1, *[1] * (numbers.ndim - weight.in_axis - 1)), numbers.shape)
    # Some of the rows, before there is a copy of them: the last weight of a language model has 100,000.
    step = max(1, numbers.size // numbers.shape[axis] // MOST_ROWS)
    some, power = (np.moveaxis(each, axis, -1)[::step] for each in (numbers, power))
    return (np.square(some, dtype=np.float64) * power).reshape(-1, numbers.shape[axis])[:, places]


def _powers(model: ir.Model, weights: Sequence[Weight], data: JobData) -> dict[ir.Value, np.ndarray]:
    """The mean square of each input of a layer, by its weight; of none where there are no samples."""
    given = data.calibration or data.training
    layers = {weight.uses[0].node: weight for weight in weights}
    found: dict[ir.Value, np.ndarray] = {}
    if given is None:
        return found
    some = given.take(slice(0, affordable(model, given, SAMPLES))).read()
    try:
        for visit in walk(model, None, some, layers.keys() & set(model.graph)):
            weight = layers[visit.node]
            power = _power(Blocks.of(weight), visit.pruned)
            if len(power) == weight.shape[weight.in_axis]:
                found[weight.value] = power
    except DataError:
        # Their magnitudes alone then.
        return {}
    return found


def _power(blocks: Blocks, batches: Sequence[Mapping[ir.Value, np.ndarray]]) -> np.ndarray:
    """The mean square of each channel of the data operand, float64."""
    data = [np.moveaxis(arrays[blocks.data], blocks.data_axis, -1) for arrays in batches]
    rows = [array.reshape(-1, array.shape[-1]) for array in data]
    return sum(np.square(row, dtype=np.float64).sum(0) for row in rows) / sum(len(row) for row in rows)


def _grouped(weight: Weight) -> bool:
    return weight.uses[0].node.attributes.get_int("group", 1) > 1

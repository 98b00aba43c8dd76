"""First and second moments of a layer's inputs, in the dense model and in the pruned one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.errors import NotFiniteError
from onnxprune.model.blocks import Blocks

# Most columns of all batches; if there are more (a Conv has one for each output position), they are drawn at random.
COLUMNS = 16_384
# Many small groups, as in a depthwise Conv, need fewer: this many per input of a group, or as many as fit in an array
# of `ELEMENTS`.
COLUMNS_PER_INPUT = 40
ELEMENTS = 1 << 25


@dataclass(frozen=True)
class Moments:
    """Means over the input columns x (of the pruned model) and d (of the dense one) of a layer; float64.

    `second`: x x^T, and `cross`: d x^T, both (groups, inputs, inputs); `mean` and `dense_mean` (groups, inputs);
    `count`: the number of columns.
    """

    second: np.ndarray
    cross: np.ndarray
    mean: np.ndarray
    dense_mean: np.ndarray
    count: int

    def joined(self, other: Moments) -> Moments:
        """The moments over the columns of both."""
        count = self.count + other.count
        mine, its = self.count / count, other.count / count
        return Moments(
            mine * self.second + its * other.second,
            mine * self.cross + its * other.cross,
            mine * self.mean + its * other.mean,
            mine * self.dense_mean + its * other.dense_mean,
            count,
        )

    def centered(self) -> Moments:
        """Central moments, for a layer whose bias compensates the mean."""
        second = self.second - self.mean[:, :, None] * self.mean[:, None, :]
        cross = self.cross - self.dense_mean[:, :, None] * self.mean[:, None, :]
        return Moments(second, cross, np.zeros_like(self.mean), np.zeros_like(self.dense_mean), self.count)


def collect(
    blocks: Blocks, pairs: Sequence[tuple[np.ndarray, np.ndarray]], seed: int, columns: int = COLUMNS
) -> Moments:
    """The moments of a layer over batches of its data operand; each pair is (dense model, pruned model).

    `columns`: the most of all batches.
    """
    groups, _, inputs = blocks.shape
    second, cross = (np.zeros((groups, inputs, inputs)) for _ in range(2))
    mean, dense_mean = (np.zeros((groups, inputs)) for _ in range(2))
    count = 0
    enough = max(COLUMNS_PER_INPUT * inputs, ELEMENTS // (groups * inputs))
    most = math.ceil(min(columns, enough) / len(pairs))
    for number, batch in enumerate(pairs):
        dense, pruned = (
            blocks.columns(data.astype(np.float32, copy=False), most, seed + number) for data in batch
        )
        # What overflows is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            second += pruned @ pruned.transpose(0, 2, 1)
            cross += dense @ pruned.transpose(0, 2, 1)
        mean += pruned.sum(2, dtype=np.float64)
        dense_mean += dense.sum(2, dtype=np.float64)
        count += dense.shape[2]
    found = Moments(second / count, cross / count, mean / count, dense_mean / count, count)
    check_finite((found.second, found.cross), blocks.node)
    return found


def check_finite(statistics: Sequence[np.ndarray], node: ir.Node) -> None:
    """Check what was measured of a layer's inputs.

    Raises:
        NotFiniteError: it holds NaN or infinity.
    """
    if not all(np.isfinite(array).all() for array in statistics):
        raise NotFiniteError(
            f"the inputs of {node.op_type} {node.name or node.outputs[0].name!r} are not finite on the calibration "
            "data, or too large to square: give data on which they are, or --exclude the layer"
        )

"""First and second moments of a layer's inputs, in the dense model and in the pruned one.

Central moments are sums over what differs from the first columns, not differences of sums: of inputs that hardly vary
nothing but rounding would be left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.errors import NotFiniteError
from onnxprune.model.blocks import Blocks
from onnxprune.model.names import name_of

# Most columns of all batches; if there are more (a Conv has one for each output position), they are drawn at random.
COLUMNS = 16_384
# Many small groups, as in a depthwise Conv, need fewer: this many per input of a group, or as many as fit in an array
# of `ELEMENTS`.
COLUMNS_PER_INPUT = 40
ELEMENTS = 1 << 25
# Of the mean square of the inputs: inputs that vary less are constant, and say nothing about weights.
STILL = 1e-10


@dataclass(frozen=True)
class Moments:
    """Moments of the input columns x (of the pruned model) and d (of the dense one) of a layer; float64.

    `second`: of x x^T, and `cross`: of d x^T, both central, (groups, inputs, inputs); `mean` and `dense_mean` (groups,
    inputs); `count`: the number of columns.
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
        apart, dense_apart = self.mean - other.mean, self.dense_mean - other.dense_mean
        return Moments(
            mine * self.second + its * other.second + mine * its * outer(apart, apart),
            mine * self.cross + its * other.cross + mine * its * outer(dense_apart, apart),
            mine * self.mean + its * other.mean,
            mine * self.dense_mean + its * other.dense_mean,
            count,
        )

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """The means of x x^T and d x^T."""
        return self.second + outer(self.mean, self.mean), self.cross + outer(self.dense_mean, self.mean)

    def centered(self) -> tuple[np.ndarray, np.ndarray]:
        """Central moments, for a layer whose bias compensates the mean; of still inputs they are like the identity."""
        floor = still(self.mean)
        return self.second + floor, self.cross + floor


def outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The outer products of the last axes."""
    return left[..., :, None] * right[..., None, :]


def still(mean: np.ndarray) -> np.ndarray:
    """What to add to central moments (..., inputs, inputs), so that weights stay where inputs do not vary."""
    return STILL * np.square(mean).mean(-1)[..., None, None] * np.eye(mean.shape[-1])


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
    pivots: list[np.ndarray] = []
    enough = max(COLUMNS_PER_INPUT * inputs, ELEMENTS // (groups * inputs))
    most = math.ceil(min(columns, enough) / len(pairs))
    for number, batch in enumerate(pairs):
        dense, pruned = (
            blocks.columns(data.astype(np.float32, copy=False), most, seed + number) for data in batch
        )
        # What overflows is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            pivots = pivots or [dense.mean(2, keepdims=True), pruned.mean(2, keepdims=True)]
            dense, pruned = dense - pivots[0], pruned - pivots[1]
            second += pruned @ pruned.transpose(0, 2, 1)
            cross += dense @ pruned.transpose(0, 2, 1)
        mean += pruned.sum(2, dtype=np.float64)
        dense_mean += dense.sum(2, dtype=np.float64)
        count += dense.shape[2]
    mean, dense_mean = mean / count, dense_mean / count
    second = second / count - outer(mean, mean)
    cross = cross / count - outer(dense_mean, mean)
    check_finite((second, cross), blocks.node)
    return Moments(second, cross, mean + pivots[1][..., 0], dense_mean + pivots[0][..., 0], count)


def check_finite(statistics: Sequence[np.ndarray], node: ir.Node) -> None:
    """Check what was measured of a layer's inputs.

    Raises:
        NotFiniteError: it holds NaN or infinity.
    """
    if not all(np.isfinite(array).all() for array in statistics):
        raise NotFiniteError(
            f"the inputs of {node.op_type} {name_of(node)!r} are not finite on the calibration "
            "data, or too large to square: give data on which they are, or --exclude the layer"
        )

"""Blocks of 4 neighboring weights that are kept or removed whole, along one axis of a weight.

4x1: 4 consecutive outputs at one input, so that a kernel loads that input once for 4 outputs. In a grouped Conv, blocks
end where a group of outputs ends; in a grouped ConvTranspose the same holds for inputs.
1x4: 4 consecutive input channels of one output, in a Conv at one kernel position: the operands of one 8-bit dot product
(VPDPBUSD, SDOT).

The last block along the axis may be smaller:

    5 outputs, 2 inputs, 4x1   ->  2 by 2 blocks: outputs 0-3 and output 4, each at inputs 0 and 1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.model.weights import Weight

BLOCK = 4


@dataclass(frozen=True)
class BlockPattern:
    """Blocks along an axis of a weight, which never cross from one group of a convolution to the next."""

    axis: Callable[[Weight], int]

    def norms(self, weight: Weight, scores: np.ndarray) -> np.ndarray:
        """The root mean square of the scores of each block, float64, of the weight's shape but for the axis of blocks.

        `scores` have the shape of the weight.
        """
        axis, starts = self.axis(weight), self._starts(weight)
        sums = np.add.reduceat(np.square(scores, dtype=np.float64), starts, axis=axis)
        sizes = np.diff(starts, append=weight.shape[axis])
        return np.sqrt(sums / sizes.reshape(-1, *[1] * (sums.ndim - axis - 1)))

    def spread(self, weight: Weight, blocks: np.ndarray) -> np.ndarray:
        """A value for each block, of the shape of `norms`, repeated for each element, in the weight's shape."""
        axis = self.axis(weight)
        sizes = np.diff(self._starts(weight), append=weight.shape[axis])
        return np.repeat(blocks, sizes, axis=axis)

    def _starts(self, weight: Weight) -> np.ndarray:
        """The first element of every block along the axis."""
        axis = self.axis(weight)
        length = weight.shape[axis]
        # Groups follow each other along the first axis of a convolution's weight.
        groups = weight.uses[0].node.attributes.get_int("group", 1) if axis == 0 else 1
        period = length // groups
        return np.concatenate([np.arange(first, first + period, BLOCK) for first in range(0, length, period)])


BLOCK_PATTERNS: Mapping[str, BlockPattern] = {
    "4x1": BlockPattern(lambda weight: weight.out_axis),
    "1x4": BlockPattern(lambda weight: weight.in_axis),
}

"""4x1 blocks of a weight: 4 consecutive outputs at one input position, so that a kernel loads that input once for 4.

In the (out, in) matrix of `Weight.matrix`, rows 0 to 3 form the first blocks, rows 4 to 7 the next. The last rows may
form smaller blocks; in a grouped Conv, blocks end where a group of outputs ends.

    5 outputs, 2 inputs   ->  blocks (2, 2): rows 0-3 and row 4, each at inputs 0 and 1
"""

from __future__ import annotations

import numpy as np

from onnxprune.model.weights import Weight

BLOCK_OUTPUTS = 4


def block_norms(weight: Weight, scores: np.ndarray) -> np.ndarray:
    """The root mean square of the scores of each block: float64 (blocks of outputs, inputs).

    `scores` have the shape of the weight.
    """
    starts = _starts(weight)
    squares = np.square(weight.matrix(scores).astype(np.float64))
    sizes = np.diff(starts, append=len(squares))
    return np.sqrt(np.add.reduceat(squares, starts, axis=0) / sizes[:, None])


def spread(weight: Weight, blocks: np.ndarray) -> np.ndarray:
    """A value for each block, (blocks of outputs, inputs), repeated for each element, in the weight's shape."""
    outputs = weight.shape[weight.out_axis]
    rows = np.repeat(blocks, np.diff(_starts(weight), append=outputs), axis=0)
    others = [size for axis, size in enumerate(weight.shape) if axis != weight.out_axis]
    return np.moveaxis(rows.reshape(outputs, *others), 0, weight.out_axis)


def _starts(weight: Weight) -> np.ndarray:
    """The first output of every row of blocks."""
    outputs = weight.shape[weight.out_axis]
    group = outputs // weight.uses[0].node.attributes.get_int("group", 1)
    return np.concatenate(
        [np.arange(first, first + group, BLOCK_OUTPUTS) for first in range(0, outputs, group)]
    )

"""The storage of a sparse weight of 8-bit integers: blocks of neighboring inputs that are not zero, and their gaps.

The weight's axes are brought in the order (outer, inner, inputs), inputs last, and inputs padded to a multiple of the
block: 1 or 4. A block is stored where one of its numbers is not its zero point. `gaps` holds the distance from one
stored block to the next, as `encode.py` counts it; a distance above 255 is bridged by blocks of zero points.

    inputs 4 of each output, 2 outputs, zero point 0, blocks of 4
    weight [[0 0 0 0] [0 5 0 6]]  ->  values [[0 5 0 6]], gaps [2], shape [2 4]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.errors import ModelFileError
from onnxprune.sparse.coding import smaller_code
from onnxprune.sparse.encode import Encoded, check_places, encode, new_array

BLOCK = 4
BLOCK_SIZES = (1, BLOCK)


def layout_of(shape: Sequence[int], input_axis: int) -> tuple[int, int, int]:
    """The numbers of elements before, along and behind the axis of inputs."""
    return math.prod(shape[:input_axis]), shape[input_axis], math.prod(shape[input_axis + 1 :])


def encode_blocks(weight: np.ndarray, zero: np.ndarray, input_axis: int, block: int) -> Encoded:
    """The blocks of `weight` (8-bit integers) with a number that is not `zero`, which broadcasts to the weight.

    A weight without any gets one block of zero points. What pads inputs is stored as 0 and means nothing.
    """
    present = np.asarray(_in_blocks(weight != zero, input_axis, block).any(axis=1))
    gaps = encode(present).gaps
    values = _in_blocks(weight, input_axis, block)[np.cumsum(gaps, dtype=np.int64) - 1]
    return Encoded(values, gaps, np.array(weight.shape, np.int64))


def smallest_blocks(
    weight: np.ndarray, zero: np.ndarray, input_axis: int, coded: bool = False
) -> tuple[Encoded, np.ndarray | None]:
    """The blocks of 1 or of 4 that take fewer bytes, and if `coded` their code where that is smaller."""
    encodings = [encode_blocks(weight, zero, input_axis, block) for block in BLOCK_SIZES]
    pairs = [
        (each, smaller_code(each.values, each.gaps, weight.nbytes) if coded else None) for each in encodings
    ]
    return min(pairs, key=lambda pair: bytes_of(*pair))


def bytes_of(blocks: Encoded, coded: np.ndarray | None) -> int:
    """Bytes of blocks with their code in place of them, where there is one."""
    return blocks.nbytes if coded is None else coded.nbytes + blocks.shape.nbytes


def decode_blocks(blocks: Encoded, zero: np.ndarray, input_axis: int, name: str) -> np.ndarray:
    """The weight that `encode_blocks` was given, in the same shape; `name` is what errors call it.

    Raises:
        ModelFileError: the arrays are no encoding: wrong dtypes, ranks or lengths, another size of blocks, a gap of 0,
            a block beyond the weight, zero points that do not fit it, or a shape that no memory holds.
    """
    values, gaps, shape = blocks
    if values.dtype not in (np.int8, np.uint8) or zero.dtype != values.dtype:
        raise _broken(
            name, f"its values are {values.dtype} and its zero points {zero.dtype}, not both (u)int8"
        )
    if values.ndim != 2 or values.shape[1] not in BLOCK_SIZES:
        raise _broken(name, f"its values of shape {list(values.shape)} are not in blocks of 1 or 4")
    block = values.shape[1]
    dims = check_places(gaps, shape, len(values), name)
    if input_axis >= len(dims):
        raise _broken(name, f"its shape {dims} has too few axes")
    outer, inputs, inner = layout_of(dims, input_axis)
    row = -(-inputs // block)
    if (end := int(gaps.sum(dtype=np.int64))) > outer * inner * row:
        raise _broken(name, f"its last block is at position {end - 1} of {outer * inner * row}")
    whole = new_array(dims, values.dtype, name)
    try:
        whole[...] = zero
    except ValueError:
        raise _broken(name, f"its zero points of shape {list(zero.shape)} do not fit {dims}") from None
    filled = _in_blocks(whole, input_axis, block)
    filled[np.cumsum(gaps, dtype=np.int64) - 1] = values
    rows = filled.reshape(outer, inner, row * block)[:, :, :inputs]
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(dims)


def share_of_fours(blocks: Encoded, input_axis: int) -> float:
    """Fours of neighboring inputs of which one is stored, in numbers that they hold, as a share of the weight's."""
    values, gaps, shape = blocks
    block = values.shape[1]
    inputs = int(shape[input_axis])
    positions = np.cumsum(gaps, dtype=np.int64) - 1
    row, place = np.divmod(positions, -(-inputs // block))
    fours = np.unique(row * -(-inputs // BLOCK) + place * block // BLOCK)
    return len(fours) * BLOCK / math.prod(int(dim) for dim in shape)


def _in_blocks(array: np.ndarray, input_axis: int, block: int) -> np.ndarray:
    """An array of the weight's shape as (blocks, block), a copy; padded with zeros."""
    outer, inputs, inner = layout_of(array.shape, input_axis)
    rows = array.reshape(outer, inputs, inner).swapaxes(1, 2)
    return np.pad(rows, ((0, 0), (0, 0), (0, -inputs % block))).reshape(-1, block)


def _broken(name: str, what: str) -> ModelFileError:
    return ModelFileError(f"{name} cannot be decoded: {what}; write the model again with onnxprune")

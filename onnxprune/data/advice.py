"""What to do about an array that does not fit an input: the step of numpy that makes it fit, where there is one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from onnxprune.data.specs import InputSpec

Shape = Sequence[int]
Dims = Sequence[int | str | None]
# Permutations of more axes are not tried.
MOST_AXES = 5
AS_TRAINED = "as in the training of the model"


def fits(shape: Shape, dims: Dims) -> bool:
    """Whether a shape has these dims, of which those that are no numbers are free."""
    return len(shape) == len(dims) and all(
        not isinstance(dim, int) or side == dim for side, dim in zip(shape, dims, strict=True)
    )


def dims_of(dims: Dims) -> str:
    """Dims of an input without those of the samples, as [N, 3, any, any]."""
    return f"[{', '.join(['N', *(str(dim) if isinstance(dim, int) else 'any' for dim in dims)])}]"


def shape_advice(shape: Shape, spec: InputSpec) -> str:
    """How an array of this shape, samples along the first axis, becomes one that fits the input."""
    sides, dims = tuple(shape[1:]), tuple(spec.shape[1:])
    wanted = dims_of(dims)
    if order := _order(sides, dims):
        axes = ", ".join(str(axis) for axis in (0, *(place + 1 for place in order)))
        return f"transpose it to {wanted}, array.transpose({axes})"
    for axis in range(len(dims) if len(sides) + 1 == len(dims) else 0):
        if fits((*sides[:axis], 1, *sides[axis:]), dims):
            return f"add an axis of size 1, numpy.expand_dims(array, {axis + 1})"
    for axis, side in enumerate(sides if len(sides) == len(dims) + 1 else ()):
        if side == 1 and fits((*sides[:axis], *sides[axis + 1 :]), dims):
            return f"take away the axis of size 1, array.squeeze({axis + 1})"
    fixed = [dim for dim in dims if isinstance(dim, int)]
    if len(sides) + 1 == len(dims) and fits(sides, dims[1:]):
        return f"give samples {wanted}, {AS_TRAINED}; one sample alone needs the axis of the samples, array[None]"
    flat = 1 in (len(sides), len(dims)) and len(sides) != len(dims)
    if flat and len(fixed) == len(dims) and math.prod(fixed) == math.prod(sides):
        new = ", ".join(map(str, fixed))
        return f"its values have to be in the order of {wanted}; then array.reshape(len(array), {new})"
    return _other(sides, dims, wanted)


def _order(sides: Shape, dims: Dims) -> tuple[int, ...] | None:
    """The order of axes in which an array fits, channels first or last before others; None: none."""
    count = len(sides)
    if count != len(dims) or not 2 <= count <= MOST_AXES:
        return None
    moves = [(count - 1, *range(count - 1)), (*range(1, count), 0)]
    orders = itertools.chain(moves, itertools.permutations(range(count)))
    return next((order for order in orders if fits([sides[axis] for axis in order], dims)), None)


def _other(sides: Shape, dims: Dims, wanted: str) -> str:
    if len(sides) == len(dims) == 3:
        channels, *size = dims
        if sides[0] == 1 and isinstance(channels, int) and fits((channels, *sides[1:]), dims):
            return f"repeat its only channel, array.repeat({channels}, axis=1), or give images of {channels} channels"
        if fits((sides[0], *(1 for _ in size)), (channels, None, None)):
            return f"resize the images to {wanted}, {AS_TRAINED}; image files, and bytes with --transform, are resized"
    if len(sides) == len(dims) == 1:
        return f"give the {dims[0]} values of a sample that the model was trained on"
    elsewhere = ", or say by --batch-axis where they lie" if len(sides) == len(dims) else ""
    return f"give samples of that shape, {AS_TRAINED}{elsewhere}"


def type_advice(array: np.ndarray, dtype: np.dtype) -> str:
    """How an array becomes one of the input's type."""
    given, wanted = array.dtype.kind, dtype.kind
    if wanted == "O":
        return "give texts"
    if given in "OUS":
        return f"encode texts as numbers {AS_TRAINED}"
    if wanted == "f" and array.dtype == np.uint8 and array.ndim > 2:
        return f"give --transform, or scale the bytes {AS_TRAINED}"
    if wanted == "f" and given in "iub":
        return f"array.astype('{dtype}'), scaled {AS_TRAINED}"
    if wanted in "iub" and given == "f":
        whole = array.size and bool((array == np.round(array)).all())
        return (
            f"array.astype('{dtype}')"
            if whole
            else f"its values are not whole; give the numbers (of tokens, for example) {AS_TRAINED}"
        )
    return f"preprocess it {AS_TRAINED}"

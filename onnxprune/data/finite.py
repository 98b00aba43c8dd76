"""Refusing samples that hold NaN or infinity: one of them is enough to ruin every weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.errors import DataError

Numbers = Sequence[int] | np.ndarray | None
"""The numbers of samples in their data, where they are known."""


def check_finite(arrays: Mapping[str, np.ndarray], data: str, numbers: Numbers, given: Mapping = {}) -> None:
    """Check arrays of floats by name, samples along the first axis.

    `given`: the arrays before they were converted to the types of the inputs.

    Raises:
        DataError: one holds NaN or infinity, or a number that its type does not hold.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "fV" or not array.size or np.isfinite(array).all():
            continue
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        value, sample = float(array[place]), where(place, numbers)
        before = given.get(name)
        if before is not None and before.shape == array.shape and np.isfinite(before[place]):
            raise DataError(
                f"array {name!r} of {data} has {float(before[place]):g} in {sample}, too large for {array.dtype}: "
                "scale the data as in the training of the model"
            )
        raise DataError(
            f"array {name!r} of {data} has {value:g} in {sample}: give finite numbers (in a mask, -1e9 for -inf), or "
            "leave the sample out"
        )


def where(place: Sequence[int], numbers: Numbers) -> str:
    """The sample of an element in words."""
    return "a sample" if not place or numbers is None else f"sample {numbers[place[0]]}"

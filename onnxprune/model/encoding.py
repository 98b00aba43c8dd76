"""The encoding of a stored weight: plain numbers, or (stored - zero) * scale if it is quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from ml_dtypes import iinfo

Array = TypeVar("Array", bound=np.ndarray)


@dataclass(frozen=True)
class Encoding:
    """`zero`, of the stored type, and `scale`, float32, broadcast to the weight; scale None: not quantized."""

    zero: np.ndarray
    scale: np.ndarray | None = None

    def decode(self, array: np.ndarray) -> np.ndarray:
        """The dequantized numbers, float32; the array itself if it is not quantized."""
        if self.scale is None:
            return array
        steps = array.astype(np.float32)
        steps -= self.zero.astype(np.float32)
        steps *= self.scale
        return steps

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """The nearest stored numbers, in the stored type: the inverse of `decode`."""
        if self.scale is None:
            return numbers.astype(self.zero.dtype)
        low, high = self.range()
        steps = np.rint(numbers.astype(np.float64) / self.scale) + self.zero.astype(np.float64)
        return steps.clip(low, high).astype(self.zero.dtype)

    def range(self) -> tuple[int, int]:
        """The smallest and the largest integer of the stored type."""
        limits = iinfo(self.zero.dtype)
        return int(limits.min), int(limits.max)

    def same(self, other: Encoding) -> bool:
        """Whether another encoding has the same zeros and scales."""
        same_scale = np.array_equal(np.asarray(self.scale), np.asarray(other.scale))
        return same_scale and np.array_equal(self.zero, other.zero)

    def present(self, array: np.ndarray) -> np.ndarray:
        """Which stored numbers are not zero after decoding, bool."""
        return array != self.zero


def on_axis(vector: Array, axis: int, rank: int) -> Array:
    """A vector along one of `rank` axes; the other axes have length 1."""
    return cast(Array, vector.reshape([-1 if index == axis % rank else 1 for index in range(rank)]))


def along(parameter: np.ndarray, shape: Sequence[int], axes: Sequence[int], block: int = 0) -> np.ndarray:
    """Scales or zero points, reshaped to broadcast to a weight: one value, or one for each position of `axes`.

    Those with the weight's rank are unchanged, or with `block` repeated for that many positions of the first of `axes`.

    Raises:
        ValueError: they do not fit a weight of this shape.
    """
    if parameter.size == 1:
        return parameter.reshape(())
    if parameter.ndim < len(shape):
        lengths = dict(zip(axes, parameter.shape, strict=False))
        parameter = parameter.reshape([lengths.get(axis, 1) for axis in range(len(shape))])
    elif block:
        parameter = parameter.repeat(block, axes[0]).take(np.arange(shape[axes[0]]), axes[0])
    np.broadcast_to(parameter, shape)
    return parameter

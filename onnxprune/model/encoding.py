"""What the numbers of a stored weight stand for: themselves, or (stored - zero) * scale where it is quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ml_dtypes import iinfo


@dataclass(frozen=True)
class Encoding:
    """`zero`, of the stored type, and `scale`, float32, broadcast to the weight; no scale: nothing is quantized."""

    zero: np.ndarray
    scale: np.ndarray | None = None

    def decode(self, array: np.ndarray) -> np.ndarray:
        """What stored numbers stand for: the array itself where they are not quantized, else float32."""
        if self.scale is None:
            return array
        steps = array.astype(np.float32)
        steps -= self.zero.astype(np.float32)
        steps *= self.scale
        return steps

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """The stored numbers nearest to these: the inverse of `decode`, in the stored type."""
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
        """Whether another one is of the same zeros and scales."""
        same_scale = np.array_equal(np.asarray(self.scale), np.asarray(other.scale))
        return same_scale and np.array_equal(self.zero, other.zero)

    def present(self, array: np.ndarray) -> np.ndarray:
        """Which stored numbers stand for anything but zero, bool."""
        return array != self.zero


def along(parameter: np.ndarray, shape: Sequence[int], axes: Sequence[int], block: int = 0) -> np.ndarray:
    """Scales or zero points, so shaped that they broadcast to a weight: one, or one for each position of `axes`.

    Those that have the weight's rank stand as they are, or with `block` for as many positions of the first of `axes`.

    Raises:
        ValueError: they fit no weight of this shape.
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

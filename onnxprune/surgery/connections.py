"""Which inputs each output of a weight reads, as bits: booleans would take a quarter of the memory of the weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Elements processed at once.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Connections:
    """`bits` (outputs, inputs / 8, rounded up): uint8, the first input in the highest bit."""

    bits: np.ndarray
    inputs: int

    @classmethod
    def of(cls, matrix: np.ndarray) -> Connections:
        """The connections of a weight (outputs, inputs, all other positions): any element that is not zero."""
        outputs, inputs, _ = matrix.shape
        bits = np.empty((outputs, -(-inputs // 8)), np.uint8)
        rows = max(1, CHUNK * outputs // max(matrix.size, 1))
        for start in range(0, outputs, rows):
            some = matrix[start : start + rows]
            read = some[:, :, 0] != 0 if some.shape[2] == 1 else (some != 0).any(axis=2)
            bits[start : start + rows] = np.packbits(read, axis=1)
        return cls(bits, inputs)

    def read_by(self, outputs: np.ndarray) -> np.ndarray:
        """The inputs that any of the `outputs` (bool) reads, bool."""
        bits = self.bits if outputs.all() else self.bits[outputs]
        read = (
            np.bitwise_or.reduce(bits, axis=0) if len(bits) else np.zeros_like(self.bits, shape=bits.shape[1])
        )
        return np.unpackbits(read, count=self.inputs).view(bool)

    def readers(self, inputs: np.ndarray) -> np.ndarray:
        """The outputs that read any of their group's `inputs`, bool (groups, inputs of a group)."""
        grouped = self.bits.reshape(len(inputs), -1, self.bits.shape[1])
        return (grouped & np.packbits(inputs, axis=1)[:, None]).any(axis=2).reshape(-1)

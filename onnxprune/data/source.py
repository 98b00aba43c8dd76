"""Where the arrays of samples come from: memory, files, Python objects, or code that yields them."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from onnxprune.data.ragged import as_rows, is_ragged, sample_shapes, taken
from onnxprune.data.rows import Rows
from onnxprune.errors import DataError

Arrays = dict[str, np.ndarray]
"""Arrays by name: inputs, and labels under "labels" or "labels.OUTPUT"; samples along the first axis, see `ragged`."""

# Samples that identify a source.
PROBED = 16


class Source(ABC):
    """Samples that are read when they are needed, by number.

    `costly`: reading a sample takes longer than copying it, for example because an image is decoded, so that worker
    processes pay. `sequential`: every read is a pass from the first sample on. `repeats`: a sample is the same each
    time it is read; code of a user may change it at random. `notes`: for the summary of a job. `image_shape`: of the
    images whose pixels are the inputs, where these may be flat.
    Sources are sent to worker processes, so they must be picklable and safe to use after a fork.
    """

    costly = False
    sequential = False
    repeats = True
    notes: tuple[str, ...] = ()
    image_shape: tuple[int, ...] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: np.ndarray) -> Arrays:
        """The samples with these numbers, in this order.

        Raises:
            DataError: one cannot be read.
        """

    def read_alone(self, names: Collection[str], index: np.ndarray) -> Arrays | None:
        """The arrays with these names alone; None if that would cost as much as all of them."""
        return None

    def scan(self, index: np.ndarray, size: int, epoch: int = 0) -> Iterator[Arrays]:
        """The samples with these ascending numbers in batches of `size`; the last one may be smaller.

        `epoch`: the pass over a sequential source, which may give other values in each.
        """
        for start in range(0, len(index), size):
            yield self.read(index[start : start + size])

    def sample_shapes(self, name: str) -> set[tuple[int, ...]]:
        """The shapes of the samples of an array, as far as they are known without reading them."""
        return set()

    def identity(self) -> int:
        """A checksum of the length and of some samples, without reading all of them."""
        some = np.unique(np.linspace(0, len(self) - 1, PROBED).astype(int))
        return checksum(self.read(some), len(self))


class ArraySource(Source):
    """Arrays in memory or rows of files, of one length.

    Raises:
        DataError: the lengths differ.
    """

    def __init__(self, arrays: Mapping[str, Rows], name: str, image_shape: tuple[int, ...] | None = None):
        self.arrays = dict(arrays)
        self.image_shape = image_shape
        self._count = common_length({key: len(array) for key, array in arrays.items()}, name)

    def __len__(self) -> int:
        return self._count

    def read(self, index: np.ndarray) -> Arrays:
        return self.read_alone(self.arrays, index)

    def read_alone(self, names: Collection[str], index: np.ndarray) -> Arrays:
        part = _as_slice(index)
        return {key: taken(self.arrays[key], part) for key in names}

    def sample_shapes(self, name: str) -> set[tuple[int, ...]]:
        return sample_shapes(self.arrays[name])


def ahead(batches: Iterator[Arrays]) -> Iterator[Arrays]:
    """The same batches, each read by a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, batches, None)
        while (batch := waiting.result()) is not None:
            waiting = thread.submit(next, batches, None)
            yield batch


def common_length(lengths: Mapping[str, int], name: str) -> int:
    """The number of samples of arrays with these lengths.

    Raises:
        DataError: the lengths differ.
    """
    if len(set(lengths.values())) != 1:
        counts = ", ".join(f"{key} {count}" for key, count in lengths.items())
        raise DataError(
            f"the arrays of {name} have different lengths ({counts}): give one row per sample in each"
        )
    return next(iter(lengths.values()))


def checksum(arrays: Mapping[str, np.ndarray], *numbers: int) -> int:
    """CRC-32 of arrays and numbers."""
    found = zlib.crc32(repr(numbers).encode())
    for key, array in sorted(arrays.items()):
        found = zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), found)
        if is_ragged(array):
            found = checksum({str(place): sample for place, sample in enumerate(array)}, found)
            continue
        content = np.ascontiguousarray(array) if array.dtype != object else str(array.tolist()).encode()
        found = zlib.crc32(content.tobytes() if isinstance(content, np.ndarray) else content, found)
    return found


def stack(samples: Sequence[Mapping[str, np.ndarray]], name: str) -> Arrays:
    """Samples {name: array without a first axis} as arrays with one.

    Raises:
        DataError: their names or numbers of axes differ.
    """
    names = set(samples[0])
    if any(set(sample) != names for sample in samples):
        raise DataError(f"samples of {name} have different names: use the same names in all samples")
    arrays = {}
    for key in samples[0]:
        try:
            arrays[key] = as_rows([np.asarray(sample[key]) for sample in samples])
        except ValueError:
            ranks = sorted({np.ndim(sample[key]) for sample in samples})
            raise DataError(
                f"{key!r} of {name} has samples of {ranks[0]} and of {ranks[-1]} axes: give all of them the same number"
            ) from None
    return arrays


def _as_slice(index: np.ndarray) -> np.ndarray | slice:
    """Consecutive numbers as a slice, which copies nothing."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index

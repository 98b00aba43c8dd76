"""Samples from code that yields batches, anew at each pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from onnxprune.data.axes import FIRST_AXES
from onnxprune.data.ragged import as_rows, joined_rows, put_rows, sample_shapes, taken
from onnxprune.data.source import Arrays, Source, checksum, common_length
from onnxprune.errors import DataError

# Samples that identify a stream: its first ones.
PROBED = 16
# The last samples of a pass are copied from memory in so many parts.
PARTS = 64

Batches = Iterable[Mapping[str, Any]]
ToRows = Callable[[Arrays], dict[str, Any]]
"""Makes arrays with samples along the first axis of those of a batch."""


class StreamSource(Source):
    """Samples of code that yields batches {name: array}; every pass over them calls it anew.

    `passes(epoch)`: starts a pass; passes of one epoch must yield the same. One pass is made at once, to count them.
    `to_rows`: for batches whose samples lie otherwise.

    Raises:
        DataError: there are no batches, they do not fit together, or the code fails.
    """

    sequential = True
    repeats = False

    def __init__(self, passes: Callable[[int], Batches], name: str, to_rows: ToRows = FIRST_AXES.rows):
        self._passes = passes
        self._name = name
        self._to_rows = to_rows
        self._count = 0
        self._shapes: dict[str, set[tuple[int, ...]]] = {}
        first = None
        for batch in self._checked(0):
            first = batch if first is None else first
            self._count += _length(batch)
            for key, array in batch.items():
                self._shapes.setdefault(key, set()).update(sample_shapes(array))
        assert first is not None
        if checksum(first) != checksum(next(self._checked(0))):
            self.notes = (
                f"{name} gave other samples in a second pass: a validation split of it may hold training samples, and "
                "a resumed job may end elsewhere. Seed it, or give --validation-data.",
            )

    def __len__(self) -> int:
        return self._count

    def sample_shapes(self, name: str) -> set[tuple[int, ...]]:
        return self._shapes.get(name, set())

    def read(self, index: np.ndarray) -> Arrays:
        order = np.argsort(index, kind="stable")
        found = next(self.scan(index[order], len(index)))
        back = np.argsort(order, kind="stable")
        return _part(found, back)

    def scan(self, index: np.ndarray, size: int, epoch: int = 0) -> Iterator[Arrays]:
        yield from regrouped(self._chosen(index, epoch), size)

    def identity(self) -> int:
        return checksum(self.read(np.arange(min(PROBED, len(self)))), len(self))

    def _chosen(self, index: np.ndarray, epoch: int) -> Iterator[Arrays]:
        """The batches of a pass, with the samples at `index` alone.

        Raises:
            DataError: the pass ends before the last of them.
        """
        seen = taken = 0
        for batch in self._checked(epoch):
            if taken == len(index):
                return
            length = _length(batch)
            end = int(np.searchsorted(index, seen + length))
            part = index[taken:end] - seen
            if len(part):
                yield _part(batch, part)
            seen, taken = seen + length, end
        if taken < len(index):
            raise DataError(
                f"{self._name} gave {seen} samples in a later pass, {self._count} in the first one: give the same "
                "number in every pass"
            )

    def _checked(self, epoch: int) -> Iterator[Arrays]:
        """The batches of a pass as arrays of the same names."""
        names: set[str] = set()
        count = 0
        for count, batch in enumerate(guarded(self._passes, epoch, self._name), 1):
            yield as_arrays(batch, names, f"batch {count - 1} of {self._name}", self._to_rows)
            names = set(map(str, batch))
        if not count:
            raise DataError(f"{self._name} yields no batch: give at least 2 samples")


def as_arrays(batch: Any, names: set[str], what: str, to_rows: ToRows) -> Arrays:
    """A batch that a caller gave, as arrays with samples along the first axis, which `to_rows` makes of its own.

    `names`: of the batches before it, if there were any.

    Raises:
        DataError: it is not a mapping, has other names, or its arrays have different lengths.
    """
    if not isinstance(batch, Mapping):
        raise DataError(f"{what} is a {type(batch).__name__}: each must be a dict {{input name: array}}")
    if names and set(map(str, batch)) != names:
        raise DataError(
            f"{what} has the names {sorted(map(str, batch))}, the first batch {sorted(names)}: "
            "use the same names in all batches"
        )
    arrays = to_rows({str(key): to_array(values, str(key), what) for key, values in batch.items()})
    common_length({key: len(array) for key, array in arrays.items()}, what)
    return arrays


def to_array(values: Any, key: str, name: str) -> np.ndarray:
    """An array, a tensor or nested lists as an array; a list of samples of several sizes is ragged.

    Raises:
        DataError: it is none of them.
    """
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
        array = _rows_of(values)
        return as_rows([to_array(sample, key, name) for sample in values]) if array is None else array
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{key!r} of {name} is not an array: {error}; models that take sequences are not supported"
        ) from None


def _rows_of(values: Any) -> np.ndarray | None:
    """An array of values; None where they are arrays or lists of samples, which it cannot hold."""
    try:
        array = np.asarray(values)
    except ValueError:
        if not hasattr(values, "__len__"):
            raise
        return None
    holds = array.dtype == object and array.ndim == 1 and len(array) > 0
    return None if holds and isinstance(array[0], np.ndarray | list | tuple) else array


def guarded(passes: Callable[[int], Batches], epoch: int, name: str) -> Iterator[Any]:
    """The batches of a pass; an exception of the user's code becomes a DataError."""
    try:
        yield from passes(epoch)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name} failed while yielding batches: {type(error).__name__}: {error}") from error


def regrouped(batches: Iterable[Arrays], size: int) -> Iterator[Arrays]:
    """Batches of any sizes as batches of `size`; the last one may be smaller."""
    waiting: list[Arrays] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += _length(batch)
        while count >= size:
            joined = join(waiting)
            yield _part(joined, slice(0, size))
            rest = _part(joined, slice(size, None))
            waiting, count = [rest], count - size
    if count:
        yield join(waiting)


def join(batches: list[Arrays]) -> Arrays:
    """The samples of batches; those of several shapes become ragged.

    Raises:
        DataError: their numbers of axes differ.
    """
    arrays = {}
    for key in batches[0]:
        try:
            arrays[key] = joined_rows([batch[key] for batch in batches])
        except ValueError as error:
            raise DataError(
                f"the batches do not fit together: {key!r} has arrays whose {error}: give all of them the same number"
            ) from None
    return arrays


def shuffled(
    source: Source, index: np.ndarray, size: int, epoch: int, seed: int, kept: int
) -> Iterator[Arrays]:
    """One pass in random order, in batches of `size`: each sample is drawn from `kept` that are held in memory.

    With `kept` samples or fewer in all, any order is as likely as any other.
    """
    random = np.random.default_rng((seed, epoch))
    return regrouped(_drawn(source.scan(index, size, epoch), random, kept), size)


def _drawn(batches: Iterator[Arrays], random: np.random.Generator, kept: int) -> Iterator[Arrays]:
    waiting: list[Arrays] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += _length(batch)
        if held >= kept:
            break
    pool = {key: array.copy() for key, array in join(waiting).items()}
    for batch in batches:
        places = random.permutation(held)[: _length(batch)]
        yield _part(pool, places)
        pool = {key: put_rows(array, places, batch[key]) for key, array in pool.items()}
    yield from (_part(pool, places) for places in np.array_split(random.permutation(held), PARTS))


def _part(batch: Arrays, index: np.ndarray | slice) -> Arrays:
    return {key: taken(array, index) for key, array in batch.items()}


def _length(batch: Arrays) -> int:
    return len(next(iter(batch.values())))

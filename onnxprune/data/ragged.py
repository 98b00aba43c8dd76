"""Samples of several shapes, and samples that are all the same, as one array with a row for each sample.

Samples of several shapes are a vector of objects, each the array of one sample. A value that goes with every sample is
repeated as a view, which takes the memory of one row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from onnxprune.data.rows import RowFile, Rows


def is_ragged(array: object) -> bool:
    """Whether an array holds the arrays of samples of several shapes."""
    return (
        isinstance(array, np.ndarray)
        and array.dtype == object
        and array.ndim == 1
        and len(array) > 0
        and isinstance(array[0], np.ndarray)
    )


def ragged(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of samples as a vector of objects."""
    found = np.empty(len(samples), object)
    for place, sample in enumerate(samples):
        found[place] = sample
    return found


def as_rows(samples: Sequence[np.ndarray]) -> np.ndarray:
    """The arrays of samples stacked, or where their sizes differ, ragged.

    Raises:
        ValueError: they differ in the number of axes.
    """
    if len({sample.shape for sample in samples}) == 1:
        return np.stack(samples)
    if len({sample.ndim for sample in samples}) > 1:
        raise ValueError("the number of axes differs")
    return ragged(samples)


def repeated(value: np.ndarray, count: int) -> np.ndarray:
    """A value as `count` rows that share its memory."""
    return np.broadcast_to(value, (count, *value.shape))


def repeats(array: np.ndarray) -> bool:
    """Whether all rows are known to be the same."""
    return len(array) == 1 or (len(array) > 1 and array.strides[0] == 0)


def taken(array: Rows, index: np.ndarray | slice) -> np.ndarray:
    """The rows at `index`."""
    if isinstance(array, RowFile) or isinstance(index, slice) or not repeats(array) or len(array) == 1:
        return array[index]
    return repeated(array[0], len(np.arange(len(array))[index]))


def joined_rows(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of arrays one after the other, ragged where their shapes differ.

    Raises:
        ValueError: they differ in the number of axes.
    """
    parts = [part for part in parts if len(part)] or parts[:1]
    first = parts[0]
    if len(parts) == 1:
        return first
    if all(repeats(part) for part in parts) and all(_same(part[0], first[0]) for part in parts):
        return repeated(first[0], sum(map(len, parts)))
    if any(map(is_ragged, parts)) or len({part.shape[1:] for part in parts}) > 1:
        return as_rows([sample for part in parts for sample in part])
    return np.concatenate(parts)


def put_rows(array: np.ndarray, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """An array with other rows at `index`: changed in place, or a ragged one where their shape is another."""
    if is_ragged(array) or is_ragged(rows) or rows.shape[1:] != array.shape[1:]:
        array = array if is_ragged(array) else ragged(list(array))
        rows = rows if is_ragged(rows) else ragged(list(rows))
    array[index] = rows
    return array


def bytes_of(array: np.ndarray) -> int:
    """The bytes of all rows, repeated ones counted each time."""
    return sum(sample.nbytes for sample in array) if is_ragged(array) else array.nbytes


def sample_shapes(array: Rows) -> set[tuple[int, ...]]:
    """The shapes of the rows."""
    if isinstance(array, np.ndarray) and is_ragged(array):
        return {sample.shape for sample in array}
    return {array.shape[1:]}


def first_shape(array: np.ndarray) -> tuple[int, ...]:
    """The shape of the first row."""
    return np.shape(array[0])


def alike(
    arrays: Mapping[str, np.ndarray], shared: Collection[str], *, ordered: bool = True
) -> Iterator[np.ndarray | None]:
    """The positions of samples that fit into one batch: of one shape, and with the same values of `shared` arrays.

    None: all of them. `ordered`: only neighbors, so that the order stays.
    """
    several = [array for array in arrays.values() if is_ragged(array)]
    different = [
        arrays[name]
        for name in shared
        if not is_ragged(arrays[name])
        and not repeats(arrays[name])
        and not (arrays[name] == arrays[name][:1]).all()
    ]
    if not several and not different:
        yield None
        return
    values = [*different, *(arrays[name] for name in shared if is_ragged(arrays[name]))]
    count = len(next(iter(arrays.values())))

    def kind(place: int) -> tuple[object, ...]:
        shapes = (array[place].shape for array in several)
        return (*shapes, *(array[place].tobytes() for array in values))

    if ordered:
        for _, places in groupby(range(count), kind):
            yield np.fromiter(places, int)
        return
    groups: dict[tuple[object, ...], list[int]] = {}
    for place in range(count):
        groups.setdefault(kind(place), []).append(place)
    yield from map(np.array, groups.values())


def dense(array: np.ndarray) -> np.ndarray:
    """The rows of one shape as a plain array."""
    return np.stack(list(array)) if is_ragged(array) else array


def by_shape(function: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """What a function makes of the rows of each shape, in the order of the rows."""
    if not is_ragged(array):
        return function(array)
    found: dict[int, np.ndarray] = {}
    for index in alike({"": array}, (), ordered=False):
        assert index is not None
        found |= zip(index.tolist(), function(dense(array[index])), strict=True)
    return as_rows([found[place] for place in range(len(array))])


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one is other or (np.shape(one) == np.shape(other) and bool(np.all(one == other)))

"""Python objects that hold samples: torch datasets and loaders, Hugging Face datasets, iterables of batches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from onnxprune.data.request import Request
from onnxprune.data.rows import RowFile
from onnxprune.data.source import Arrays, ArraySource, Source, stack
from onnxprune.data.stream import StreamSource, as_arrays, guarded, join, to_array
from onnxprune.data.values import sample_arrays
from onnxprune.errors import DataError

WORDS = (
    "a mapping of arrays, batches {input name: array}, a torch Dataset or DataLoader, a Hugging Face Dataset"
)


def open_object(source: Any, name: str, request: Request) -> Source:
    """A Python object as a source of samples.

    Raises:
        DataError: it is none that is known, or cannot be read.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, Mapping):
        return open_mapping(source, name, request)
    loader = _torch("DataLoader")
    if loader is not None and isinstance(source, loader):
        return _open_loader(source, name, request)
    iterable = _torch("IterableDataset")
    if iterable is not None and isinstance(source, iterable):
        return StreamSource(partial(_batched, source, name, request), name)
    if hasattr(source, "column_names") and hasattr(source, "features"):
        if not hasattr(source, "__len__"):
            return StreamSource(partial(_batched, source, name, request), name)
        return TableSource(source, name, request)
    dataset = _torch("Dataset")
    if dataset is not None and isinstance(source, dataset):
        return ItemSource(source, name, request)
    if isinstance(source, Sequence) and not isinstance(source, str):
        return open_batches(source, name, request)
    if isinstance(source, Iterator):
        # It can be read once: what it yields has to be kept.
        return open_batches(source, name, request)
    if isinstance(source, Iterable):
        return StreamSource(lambda epoch: source, name, request.rows)
    raise DataError(f"data of type {type(source).__name__} cannot be read: give {WORDS}, or a path")


def open_mapping(source: Mapping[str, Any], name: str, request: Request) -> Source:
    """Arrays by name: in memory, memory-mapped, or in files."""
    arrays = {
        str(key): array if isinstance(array, RowFile) else to_array(array, str(key), name)
        for key, array in source.items()
    }
    return arrays_source(arrays, name, request)


def arrays_source(arrays: Mapping[str, Any], name: str, request: Request) -> Source:
    """Arrays as the model takes them, of one number of samples."""
    source = ArraySource(request.rows(arrays), name)
    named = {spec.name for spec in request.specs}
    if request.transform is not None and all(arrays[key].dtype != np.uint8 for key in named & set(arrays)):
        source.notes = (
            f"--transform was not used for {name}, whose arrays hold no bytes: values stay as they are.",
        )
    return source


def open_batches(batches: Iterable[Any], name: str, request: Request) -> Source:
    """Batches that are in memory, or can be read only once."""
    found: list[Arrays] = []
    names: set[str] = set()
    for count, batch in enumerate(guarded(lambda epoch: batches, 0, name)):
        found.append(as_arrays(batch, names, f"batch {count} of {name}", request.rows))
        names = set(found[-1])
    if not found:
        raise DataError(f"{name} yields no batch: give at least 2 samples")
    return ArraySource(join(found), name)


class ItemSource(Source):
    """A torch Dataset: samples by number, each a mapping {name: array}, or a tuple of inputs and labels.

    `collate`: makes a batch of samples, as a DataLoader's does; None: arrays are stacked.
    """

    costly = True
    repeats = False

    def __init__(
        self, items: Any, name: str, request: Request, collate: Callable[[list[Any]], Any] | None = None
    ):
        self._items = items
        self._name = name
        self._request = request
        self._collate = collate

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: np.ndarray) -> Arrays:
        try:
            samples = [self._items[int(number)] for number in index]
            batch = None if self._collate is None else self._collate(samples)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self._name} failed at one of the samples {index.min()} to {index.max()}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if batch is not None:
            return self._request.rows(sample_arrays(batch, self._name, self._request), len(index))
        return stack([sample_arrays(sample, self._name, self._request) for sample in samples], self._name)


class TableSource(Source):
    """A Hugging Face Dataset: its columns are the inputs and the labels, by name."""

    costly = True
    repeats = False

    def __init__(self, table: Any, name: str, request: Request):
        self._table = table
        self._name = name
        self._request = request

    def __len__(self) -> int:
        return len(self._table)

    def read(self, index: np.ndarray) -> Arrays:
        columns = self._table[[int(number) for number in index]]
        rows = [{key: values[row] for key, values in columns.items()} for row in range(len(index))]
        return stack([sample_arrays(row, self._name, self._request) for row in rows], self._name)


def _open_loader(loader: Any, name: str, request: Request) -> Source:
    """A DataLoader: its dataset and its collate function, where its order is a plain one; else what it yields."""
    from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

    dataset = loader.dataset
    plain = type(getattr(loader, "sampler", None)) in (RandomSampler, SequentialSampler)
    if plain and type(loader.batch_sampler) is BatchSampler and hasattr(dataset, "__getitem__"):
        return ItemSource(dataset, name, request, loader.collate_fn)

    sampler = getattr(loader, "sampler", None)

    def passes(epoch: int) -> Iterator[Arrays]:
        batches = _in_one_order(loader, sampler) if hasattr(sampler, "generator") else loader
        yield from (sample_arrays(batch, name, request) for batch in batches)

    return StreamSource(passes, name, request.rows)


def _in_one_order(loader: Any, sampler: Any) -> Iterator[Any]:
    """What a loader yields, its sampler drawing the same samples in every pass: validation is split off by number."""
    import torch

    own, sampler.generator = sampler.generator, torch.Generator().manual_seed(0)
    try:
        yield from loader
    finally:
        sampler.generator = own


def _batched(samples: Iterable[Any], name: str, request: Request, epoch: int) -> Iterator[Arrays]:
    """The samples of an iterable dataset, as batches of one."""
    if hasattr(samples, "set_epoch"):
        samples.set_epoch(epoch)
    for sample in samples:
        yield stack([sample_arrays(sample, name, request)], name)


def _torch(name: str) -> Any:
    """A class of torch.utils.data; None where torch is not in use, so that an object cannot be one of it."""
    data = sys.modules.get("torch.utils.data")
    return None if data is None else getattr(data, name)

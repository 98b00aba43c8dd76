"""Training batches in an order that the seed and the epoch fix, read ahead by worker processes where that pays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from onnxprune.data.batch import Batch
from onnxprune.data.dataset import Dataset
from onnxprune.data.images.augment import Augmentation
from onnxprune.data.images.reading import augmented, read_augmented
from onnxprune.data.ragged import bytes_of
from onnxprune.data.specs import InputSpec
from onnxprune.data.stream import shuffled
from onnxprune.errors import DataError, OnnxPruneError
from onnxprune.system.cores import usable_cores
from onnxprune.training.samples import AUGMENTATION, ORDER, Samples, random, random_seed

# Batches that each worker process reads ahead.
AHEAD = 4
MOST_WORKERS = 8
# A stream is shuffled within so many bytes of samples.
SHUFFLED_BYTES = 2**28


Runs = tuple[Samples, ...]
"""The samples of a batch, in parts that the model can be run on: of one shape, and of the size that it fixes."""


class Feed:
    """The training batches of one process: a part of every batch, without an incomplete last batch of an epoch.

    A batch depends on the seed and the number of its update alone, so that a training can be resumed at any update.
    `size`: of a batch, as near to the one asked for as the model and the data allow; `part`: which samples of a batch
    are this process's; `workers`: as in the setting `data_workers`.

    Raises:
        DataError: there are fewer samples than one batch of the model's fixed size.
    """

    def __init__(
        self,
        data: Dataset,
        specs: Sequence[InputSpec],
        size: int,
        seed: int,
        *,
        augmentation: Augmentation | None = None,
        workers: int | None = None,
    ):
        self.data = data = whole_batches(data)
        run = data.run_axes.size or 1
        self.size = min(max(size // run, 1) * run, len(data))
        self.an_epoch = len(data) // self.size
        self.part = slice(0, self.size)
        self.specs = list(specs)
        self.workers = workers
        self._seed = seed
        self._augmentation = augmentation

    def from_update(self, update: int, updates: int) -> Iterator[Runs]:
        """This process's part of the batches from one update, counted from 0, to before another."""
        if self.data.source.sequential:
            return self._streamed(update, updates)
        return self._loaded(
            self._keys(update, updates), worker_count(self.workers, self.data, self._augmentation)
        )

    def some(self, update: int, count: int) -> Iterator[Runs]:
        """This process's part of `count` batches from an update on; of a stream, those at the begin of its epoch."""
        if self.data.source.sequential:
            epoch = update // self.an_epoch
            return islice(self._pass(epoch), min(count, self.an_epoch))
        return self._loaded(self._keys(update, update + count), 0)

    def _keys(self, update: int, updates: int) -> Iterator[_Key]:
        """The samples of each batch."""
        order, ordered = np.empty(0, int), -1
        for each in range(update, updates):
            epoch, position = divmod(each, self.an_epoch)
            if epoch != ordered:
                order = torch.randperm(len(self.data), generator=random(self._seed, ORDER, epoch)).numpy()
                ordered = epoch
            batch = order[position * self.size : (position + 1) * self.size]
            yield _Key(epoch, batch[self.part])

    @property
    def repeats(self) -> bool:
        """Whether a sample is the same in every epoch."""
        return self._augmentation is None and self.data.source.repeats

    def _loaded(self, keys: Iterator[_Key], workers: int) -> Iterator[Runs]:
        reading = _Reading(self.data, self.specs, self._augmentation, self._seed, numbered=self.repeats)
        return _load(reading, keys, workers)

    def _streamed(self, update: int, updates: int) -> Iterator[Runs]:
        epoch, skipped = divmod(update, self.an_epoch)
        while update < updates:
            for runs in islice(self._pass(epoch, skipped), min(self.an_epoch - skipped, updates - update)):
                yield runs
                update += 1
            epoch, skipped = epoch + 1, 0

    def _pass(self, epoch: int, skipped: int = 0) -> Iterator[Runs]:
        """The batches of a pass over a stream."""
        source = self.data.source
        some = source.read(self.data.numbers()[:1])
        kept = max(self.size, int(SHUFFLED_BYTES / max(1, sum(map(bytes_of, some.values())))))
        batches = shuffled(source, self.data.numbers(), self.size, epoch, self._seed, kept)
        for position, arrays in enumerate(islice(batches, skipped, None), skipped):
            batch = self.data.as_batch(arrays).take(self.part)
            if self._augmentation is not None:
                places = range(*self.part.indices(self.size))
                seeds = [random_seed(self._seed, AUGMENTATION, epoch, position, place) for place in places]
                batch = augmented(batch, self._augmentation, seeds, self.specs)
            yield _runs(batch, self.specs)


def in_order(data: Dataset, specs: Sequence[InputSpec], size: int, workers: int | None) -> Iterator[Samples]:
    """All samples in order, in batches of about `size`; the last one may be smaller."""
    if data.source.sequential:
        return (Samples.of(batch, specs) for batch in data.batches(size))
    run = data.run_axes.size or 1
    step = max(size // run, 1) * run
    starts = range(0, len(data), step)
    keys = (_Key(0, np.arange(start, min(start + step, len(data)))) for start in starts)
    reading = _Reading(data, list(specs), None, 0, ordered=True)
    return chain.from_iterable(_load(reading, keys, worker_count(workers, data, None)))


def whole_batches(data: Dataset) -> Dataset:
    """The data without an incomplete last batch, if the model has a fixed batch size.

    Raises:
        DataError: there are fewer samples than one batch.
    """
    fixed = data.run_axes.size
    if fixed is None:
        return data
    if len(data) < fixed:
        raise DataError(
            f"{data.name} has {len(data)} samples, and the model has a fixed batch size of {fixed}: give more samples"
        )
    return data.take(slice(0, len(data) // fixed * fixed))


def _runs(
    batch: Batch, specs: Sequence[InputSpec], positions: np.ndarray | None = None, *, ordered: bool = False
) -> Runs:
    """The runs of a batch; `positions`: of its samples in the dataset.

    Raises:
        DataError: samples of one shape are fewer than the model takes.
    """
    found = []
    for index in batch.places(max(len(batch), 1), ordered=ordered):
        part = batch.at(index)
        if batch.axes.size is not None and len(part) < batch.axes.size:
            raise DataError(
                f"{batch.name} has samples of several shapes, and the model has a fixed batch size of "
                f"{batch.axes.size}: give samples of one shape"
            )
        found.append(Samples.of(part, specs, None if positions is None else positions[index]))
    return tuple(found)


def worker_count(asked: int | None, data: Dataset, augmentation: Augmentation | None) -> int:
    """The number of worker processes for a dataset; none where reading costs no more than copying.

    None on one core either: there a worker takes turns with the training, and has to send what it reads, which takes a
    quarter of the reading (CIFAR-10, flipped and cropped).
    """
    if asked is not None or not (data.source.costly or augmentation is not None):
        return asked or 0
    cores = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_WORKERS, cores) if cores > 1 else 0


def _load(reading: _Reading, keys: Iterator[_Key], workers: int) -> Iterator[Runs]:
    """The batches with these keys, read by torch's DataLoader."""
    loader = DataLoader(
        reading,
        sampler=_Sampler(keys),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        collate_fn=_unchanged,
        worker_init_fn=_use_one_thread,
        # Without it, the loader would take a number from the generator that everything else uses.
        generator=random(0),
    )
    try:
        for runs in loader:
            if isinstance(runs, OnnxPruneError):
                raise runs
            yield runs
    except (RuntimeError, OSError, EOFError) as error:
        # A worker that dies while it sends a batch closes the connection.
        if not workers or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
            raise
        raise DataError(
            f"a process that reads {reading.name} died, perhaps for lack of memory: give fewer --data-workers, or 0"
        ) from error


@dataclass(frozen=True)
class _Key:
    """A batch to read: the epoch, and positions in the dataset."""

    epoch: int
    positions: np.ndarray


class _Sampler(torch.utils.data.Sampler):
    """The batches to read, in order."""

    def __init__(self, keys: Iterator[_Key]):
        self._keys = keys

    def __iter__(self) -> Iterator[_Key]:
        return self._keys


class _Reading(TorchDataset):
    """Reads batches, in a worker process or in this one. An error is returned: raised, it would lose its message."""

    def __init__(
        self,
        data: Dataset,
        specs: list[InputSpec],
        augmentation: Augmentation | None,
        seed: int,
        *,
        numbered: bool = False,
        ordered: bool = False,
    ):
        self.name = data.name
        self._data = data
        self._numbers = data.numbers()
        self._specs = specs
        self._augmentation = augmentation
        self._seed = seed
        self._numbered = numbered
        self._ordered = ordered

    def __getitem__(self, key: _Key) -> Runs | OnnxPruneError:
        numbers = self._numbers[key.positions]
        try:
            if self._augmentation is None:
                batch = self._data.as_batch(self._data.source.read(numbers), numbers)
            else:
                seeds = [random_seed(self._seed, AUGMENTATION, key.epoch, int(number)) for number in numbers]
                batch = read_augmented(self._data, numbers, self._augmentation, seeds, self._specs)
            positions = key.positions if self._numbered else None
            return _runs(batch, self._specs, positions, ordered=self._ordered)
        except OnnxPruneError as error:
            return error


def _unchanged(runs: Any) -> Any:
    return runs


def _use_one_thread(worker: int) -> None:
    torch.set_num_threads(1)

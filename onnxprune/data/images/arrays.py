"""Images that come as arrays of bytes, and become inputs as those of files do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from onnxprune.data.images.augment import Augmentation, augment
from onnxprune.data.images.transforms import Transform
from onnxprune.data.ragged import by_shape
from onnxprune.data.source import Arrays, Source


class ArrayImages(Source):
    """A source whose array for the input of `transform` holds images of bytes; `labels`: the names of its labels."""

    def __init__(self, source: Source, transform: Transform, labels: Collection[str]):
        self.transform = transform
        self.costly = source.costly
        self.sequential = source.sequential
        self.repeats = source.repeats
        self._source = source
        self._labels = tuple(labels)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: np.ndarray) -> Arrays:
        return self._changed(self._source.read(index))

    def read_alone(self, names: Collection[str], index: np.ndarray) -> Arrays | None:
        return None if self.transform.input in names else self._source.read_alone(names, index)

    def scan(self, index: np.ndarray, size: int, epoch: int = 0) -> Iterator[Arrays]:
        return map(self._changed, self._source.scan(index, size, epoch))

    def read_augmented(self, index: np.ndarray, augmentation: Augmentation, seeds: Sequence[int]) -> Arrays:
        """The samples with these numbers, each changed at random by its seed before its values are scaled."""
        arrays = self._source.read(index)
        images = by_shape(self.transform.images, arrays[self.transform.input])
        images, labels = augment(augmentation, images, seeds, {name: arrays[name] for name in self._labels})
        return {**arrays, **labels, self.transform.input: by_shape(self.transform.values, images)}

    def identity(self) -> int:
        return self._source.identity()

    def _changed(self, arrays: Arrays) -> Arrays:
        name = self.transform.input
        return {**arrays, name: by_shape(self.transform.arrays, arrays[name])}

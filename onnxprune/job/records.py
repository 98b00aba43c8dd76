"""The records of a job while it runs: every weight, and both files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.config.pruning import PruningSettings
from onnxprune.model.io import Source
from onnxprune.model.weights import Weights
from onnxprune.pruning.allocation import excluded_weights
from onnxprune.reports.record import FileRecord, LayerRecord, weight_histogram
from onnxprune.sparse.fold import Folded
from onnxprune.sparse.stored import Stored

EXCLUDED = "excluded by --exclude"


class Records:
    """The records of a model's weights; `layers` is up to date after each stage.

    Raises:
        SelectorError: a selector matches nothing.
    """

    def __init__(self, weights: Weights, settings: PruningSettings):
        excluded = excluded_weights(weights.prunable, settings)
        self.unprunable = weights.left
        self.layers = [
            LayerRecord.of(weight, EXCLUDED if weight in excluded else "") for weight in weights.prunable
        ]
        self.histograms: dict[str, dict[str, Any]] = {}
        self.folded: list[Folded] = []
        self._weights = weights.prunable
        self._dense = [weight.tensor for weight in weights.prunable]

    def baseline(self, model: ir.Model, origin: Source, sample: Mapping[str, Sequence[int]]) -> FileRecord:
        """The record of the input model, for inputs of the shapes of `sample`."""
        return self._count(model, origin.path, origin.file_bytes, sample)

    def pruned(self) -> None:
        """Record the distribution of the values of each weight, in the baseline and in the pruned model."""
        self.histograms = {
            weight.name: weight_histogram(weight.encoding.decode(tensor.numpy()), weight.numbers())
            for weight, tensor in zip(self._weights, self._dense, strict=True)
        }
        self._dense = []

    def reduced(
        self, model: ir.Model, target: Path | None, sample: Mapping[str, Sequence[int]]
    ) -> FileRecord:
        """Update the weights after the removal of dead units; returns the record of the pruned model.

        The weights themselves are released.
        """
        self.layers = [layer.pruned(weight) for layer, weight in zip(self.layers, self._weights, strict=True)]
        counted = self._count(model, target, 0, sample)
        self._weights = ()
        return counted

    def stored(self, stored: Mapping[str, Stored]) -> int:
        """Record how each weight is stored; returns how many values became zero by rounding."""
        kept = self.kept
        self.layers = [_as_stored(layer, stored.get(layer.name)) for layer in self.layers]
        self.folded = self.folded + [node for outcome in stored.values() for node in outcome.folded]
        return kept - self.kept

    @property
    def kept(self) -> int:
        """Number of non-zero weights."""
        return sum(layer.kept for layer in self.layers)

    @property
    def size(self) -> int:
        """Number of weights of the input model that can be pruned."""
        return sum(layer.size for layer in self.layers)

    def _count(
        self, model: ir.Model, path: Path | None, file_bytes: int, sample: Mapping[str, Sequence[int]]
    ) -> FileRecord:
        kept = {layer.name: layer.kept for layer in self.layers}
        return FileRecord.of(model, self._weights, kept, path, file_bytes, sample)


def _as_stored(layer: LayerRecord, stored: Stored | None) -> LayerRecord:
    if stored is None:
        return layer
    return replace(
        layer,
        format=stored.format,
        values=stored.values,
        kept=layer.kept if stored.kept is None else stored.kept,
        bytes_after=stored.bytes,
        note=layer.note or stored.reason or "",
    )

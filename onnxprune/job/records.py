"""The figures of a job as it goes on: of every weight and of both files."""

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
from onnxprune.sparse.rewrite import Stored

EXCLUDED = "--exclude names it"


class Records:
    """The records of a model's weights: `layers` as far as the job has come, with what they were in memory.

    Raises:
        SelectorError: a selector matches nothing.
    """

    def __init__(self, weights: Weights, settings: PruningSettings):
        excluded = excluded_weights(weights.prunable, settings)
        self.unprunable = weights.unprunable
        self.layers = [
            LayerRecord.of(weight, EXCLUDED if weight in excluded else "") for weight in weights.prunable
        ]
        self.histograms: dict[str, dict[str, Any]] = {}
        self._weights = weights.prunable
        self._dense = [weight.tensor for weight in weights.prunable]

    def baseline(self, model: ir.Model, origin: Source, sample: Mapping[str, Sequence[int]]) -> FileRecord:
        """The input model counted, for inputs of the shapes of `sample`."""
        return self._count(model, origin.path, origin.file_bytes, sample)

    def pruned(self) -> None:
        """Take down how the values of each weight are distributed, before and after."""
        self.histograms = {
            weight.name: weight_histogram(weight.encoding.decode(tensor.numpy()), weight.numbers())
            for weight, tensor in zip(self._weights, self._dense, strict=True)
        }
        self._dense = []

    def reduced(
        self, model: ir.Model, target: Path | None, sample: Mapping[str, Sequence[int]]
    ) -> FileRecord:
        """The weights as they are by now, and the pruned model counted; its weights are then let go."""
        self.layers = [layer.pruned(weight) for layer, weight in zip(self.layers, self._weights, strict=True)]
        counted = self._count(model, target, 0, sample)
        self._weights = ()
        return counted

    def stored(self, stored: Mapping[str, Stored]) -> int:
        """Take down how each weight is stored: how many values rounding took to zero."""
        kept = self.kept
        self.layers = [_as_stored(layer, stored.get(layer.name)) for layer in self.layers]
        return kept - self.kept

    @property
    def kept(self) -> int:
        """Weights that are not zero."""
        return sum(layer.kept for layer in self.layers)

    @property
    def size(self) -> int:
        """Weights of the input model that can be pruned."""
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

"""The records of a job while it runs: every weight, and both files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.config.pruning import PruningSettings
from onnxprune.model.costs import products, weight_multiply_adds
from onnxprune.model.files.io import Source
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
        # The multiply-adds of each weight of the pruned model, by name, and its size.
        self._costs: dict[str, tuple[int, int]] = {}
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
        costs = weight_multiply_adds(self._weights, products(model, sample))
        self._costs = {weight.name: (costs[weight.name], weight.size) for weight in self._weights}
        self._weights = ()
        return counted

    def stored(self, stored: Mapping[str, Stored], pruned: FileRecord) -> FileRecord:
        """Record how each weight is stored; returns `pruned` without what became zero by rounding."""
        before = self.kept, self._saved()
        self.layers = [_as_stored(layer, stored.get(layer.name)) for layer in self.layers]
        self.folded = self.folded + [node for outcome in stored.values() for node in outcome.folded]
        nonzero = pruned.nonzero - (before[0] - self.kept)
        operations = pruned.nonzero_multiply_adds - (self._saved() - before[1])
        return replace(pruned, nonzero=nonzero, nonzero_multiply_adds=operations)

    def _saved(self) -> int:
        """Multiply-adds of the pruned model by weights that are zero."""
        found = ((layer.kept, *self._costs.get(layer.name, (0, 1))) for layer in self.layers)
        return sum(cost * (size - kept) // max(size, 1) for kept, cost, size in found)

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

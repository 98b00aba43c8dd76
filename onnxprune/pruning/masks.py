"""Masks (True = kept) with exact counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.model.weights import Weight
from onnxprune.pruning.allocation import Pool
from onnxprune.pruning.blocks import BlockPattern
from onnxprune.pruning.criteria import drawn, magnitude, ranks
from onnxprune.pruning.patterns import keep_largest

Masks = dict[str, np.ndarray]


def make_masks(
    pools: Sequence[Pool],
    random: np.random.Generator | None = None,
    *,
    blocks: BlockPattern | None = None,
    score: Callable[[Weight], np.ndarray] = magnitude,
) -> Masks:
    """A mask for every weight of the pools, by name, of the weight's shape, bool.

    A pool of n elements at rate r loses exactly round(r * n) of them, those with the lowest scores first, among equal
    ones the first. Elements that are zero already count as removed and stay zero, so a pool with more zeros than its
    rate asks for keeps them all. With `blocks`, the same holds for the blocks of that pattern, which are kept or
    removed whole; zeros in a kept block stay zero. With `random`, weights are drawn at random, see `drawn`. `score`
    gives the importance of a weight's elements, in its shape.
    """
    masks: Masks = {}
    for pool in pools:
        scores = [score(weight) for weight in pool.weights]
        if blocks is not None:
            scores = [blocks.norms(weight, of) for weight, of in zip(pool.weights, scores, strict=True)]
        if random is not None:
            scores = [drawn(of, random) for of in scores]
        if pool.by_output:
            scores = [_within_outputs(weight, of) for weight, of in zip(pool.weights, scores, strict=True)]
        if pool.threshold is not None:
            kept = [of >= pool.threshold for of in scores]
        else:
            assert pool.rate is not None
            kept = keep_largest(scores, pool.rate)
        del scores
        for weight, mask in zip(pool.weights, kept, strict=True):
            whole = mask if blocks is None else blocks.spread(weight, mask)
            weight.clear_zeros(whole)
            masks[weight.name] = whole
    return masks


def _within_outputs(weight: Weight, scores: np.ndarray) -> np.ndarray:
    """The ranks of the scores within each output, in the weight's shape."""
    rows = np.moveaxis(scores, weight.out_axis, 0)
    ranked = ranks(rows.reshape(len(rows), -1)).reshape(rows.shape)
    return np.moveaxis(ranked, 0, weight.out_axis)


def apply_masks(weights: Sequence[Weight], masks: Masks) -> None:
    """Zero the weights that the masks remove, in the model."""
    for weight in weights:
        if weight.name in masks:
            removed = masks[weight.name]
            # Inverted in place and back: a second mask would take a quarter of the memory of the weight.
            np.logical_not(removed, out=removed)
            weight.prune(removed)
            np.logical_not(removed, out=removed)


class NonZero(Mapping[ir.Value, np.ndarray]):
    """The masks of weights, True = not zero; each is computed on access, to save memory."""

    def __init__(self, weights: Sequence[Weight]):
        self._weights = {weight.value: weight for weight in weights}

    def __getitem__(self, value: ir.Value) -> np.ndarray:
        return self._weights[value].present()

    def __iter__(self) -> Iterator[ir.Value]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

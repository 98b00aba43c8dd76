"""An order of channels in which patterns of neighboring weights lose less.

Blocks are removed whole, and of every four weights two in 2:4, so that it matters which weights lie beside each other:
Pool & Yu 2021, "Channel Permutations for N:M Sparsity" (NeurIPS 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnxprune.pruning.blocks import BLOCK

# Pairs of channels that are tried, for each channel and in all.
TRIED, MOST_TRIED = 60, 20_000
# Of four weights, 2:4 keeps the larger two.
HALF = BLOCK // 2


@dataclass(frozen=True)
class ChannelOrder:
    """The channel that comes to each place, and the mean part of the squares that weights lose before and after."""

    order: np.ndarray
    before: float
    after: float


def best_order(weights: Sequence[np.ndarray], rate: float | None, seed: int = 0) -> ChannelOrder:
    """An order of the channels that some weights have in common in which they lose less; the present one if none is.

    `weights`: the squares of each, float64 (rows, channels), a multiple of `BLOCK` channels. Of each weight the
    smallest blocks of `BLOCK` neighbors go, the fraction `rate`; None: the smaller half of each block (2:4). Pairs of
    channels trade places as long as that helps: from the present order, and from that of the sums of squares.
    """
    scaled = [squares / max(squares.sum(), np.finfo(float).tiny) for squares in weights]
    present = np.arange(scaled[0].shape[1])
    before = _lost(scaled, rate)
    largest_first = np.argsort(-sum(each.sum(0) for each in scaled), kind="stable")
    rng = np.random.default_rng(seed)
    orders = [_climb(scaled, rate, start, rng) for start in (present, largest_first)]
    found = [
        ChannelOrder(order, before, _lost([each[:, order] for each in scaled], rate)) for order in orders
    ]
    return min((ChannelOrder(present, before, before), *found), key=lambda each: each.after)


def _climb(
    scaled: Sequence[np.ndarray], rate: float | None, start: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    order, channels = start.copy(), len(start)
    placed = np.concatenate([each[:, order] for each in scaled])
    parts = [slice(*ends) for ends in pairwise(np.cumsum([0, *(len(each) for each in scaled)]))]
    limits = np.zeros(len(placed))
    for number, (i, j) in enumerate(rng.integers(0, channels, (min(TRIED * channels, MOST_TRIED), 2))):
        if rate is not None and number % channels == 0:
            for part in parts:
                limits[part] = _smallest_kept(placed[part], rate)
        here, there = (slice(at // BLOCK * BLOCK, at // BLOCK * BLOCK + BLOCK) for at in (i, j))
        if here == there:
            continue
        before = _kept(placed[:, here], rate, limits) + _kept(placed[:, there], rate, limits)
        placed[:, [i, j]] = placed[:, [j, i]]
        if _kept(placed[:, here], rate, limits) + _kept(placed[:, there], rate, limits) > before:
            order[[i, j]] = order[[j, i]]
        else:
            placed[:, [i, j]] = placed[:, [j, i]]
    return order


def _kept(block: np.ndarray, rate: float | None, limits: np.ndarray) -> float:
    """What stays of one block of each row, beside a constant; `limits`: the smallest block that stays of the weight."""
    if rate is None:
        return float(np.partition(block, HALF, axis=1)[:, HALF:].sum())
    return float(np.maximum(block.sum(1), limits).sum())


def _smallest_kept(squares: np.ndarray, rate: float) -> float:
    blocks = _sums(squares)
    gone = min(round(rate * blocks.size), blocks.size - 1)
    return float(np.partition(blocks, gone)[gone])


def _lost(scaled: Sequence[np.ndarray], rate: float | None) -> float:
    """The mean part of the squares that goes."""
    if rate is None:
        return float(np.mean([np.sort(_blocks(each), axis=1)[:, :HALF].sum() for each in scaled]))
    sums = [np.sort(_sums(each)) for each in scaled]
    return float(np.mean([blocks[: round(rate * blocks.size)].sum() for blocks in sums]))


def _sums(squares: np.ndarray) -> np.ndarray:
    """The sum of each block."""
    return _blocks(squares).sum(1)


def _blocks(squares: np.ndarray) -> np.ndarray:
    return squares.reshape(-1, BLOCK)

"""The order of channels in which blocks, or 2:4, lose less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.pruning.channel_order import best_order


def lost(weights: list[np.ndarray], rate: float | None) -> float:
    """The mean part of the squares that the pattern removes, computed from its definition."""
    parts = []
    for squares in weights:
        blocks = squares.reshape(-1, 4)
        if rate is None:
            removed = np.sort(blocks, axis=1)[:, :2].sum()
        else:
            removed = np.sort(blocks.sum(1))[: round(rate * len(blocks))].sum()
        parts.append(removed / squares.sum())
    return float(np.mean(parts))


def scattered(rate: float | None, seed: int, channels: int = 32, rows: int = 40) -> np.ndarray:
    """Squares of which the pattern removes nothing in one order of the channels, in another order."""
    rng = np.random.default_rng(seed)
    if rate is None:
        # Two of the four of each block are zero, in all rows the same two.
        kept = np.tile([1.0, 1.0, 0.0, 0.0], channels // 4) * np.ones((rows, 1))
    else:
        kept = np.repeat(rng.random((rows, channels // 4)) >= rate, 4, axis=1)
    return (kept * rng.uniform(0.5, 1.5, kept.shape))[:, rng.permutation(channels)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.7, None])
def test_channels_that_are_used_alike_come_to_lie_beside_each_other(rate, seed):
    squares = scattered(rate, seed)
    found = best_order([squares], rate)
    assert found.before > 0.04
    assert found.after < 0.5 * found.before


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 5), st.integers(1, 2), st.sampled_from([0.2, 0.5, 0.7, 0.95, None]), st.integers(0, 999)
)
def test_an_order_loses_what_it_says_and_never_more_than_the_present_one(blocks, count, rate, seed):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((rng.integers(1, 9), 4 * blocks)) ** 2 for _ in range(count)]
    found = best_order(weights, rate, seed)
    assert sorted(found.order) == list(range(4 * blocks))
    assert found.before == pytest.approx(lost(weights, rate))
    assert found.after == pytest.approx(lost([each[:, found.order] for each in weights], rate))
    assert found.after <= found.before


def test_weights_that_lose_nothing_keep_their_order():
    found = best_order([np.zeros((3, 8)), np.eye(8)[:3] + np.eye(8)[3:6]], 0.1)
    assert list(found.order) == list(range(8))


def test_two_weights_that_read_the_same_channels_agree_on_an_order():
    squares = scattered(0.7, 5)
    other = scattered(0.7, 6)
    found = best_order([squares, other], 0.7)
    alone = best_order([squares], 0.7)
    assert found.after < found.before
    assert alone.after < lost([squares[:, found.order]], 0.7)
